package server

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
)

// stream answers GET /v1/agents?watch=true until the reader goes away, or
// falls so far behind that it must begin anew.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, since, epoch string) error {
	var from int64
	if since != "" {
		var err error
		if from, err = strconv.ParseInt(since, 10, 64); err != nil || from < 0 {
			return fail(api.CodeInvalid, "since is %q: it must be the revision of an event", since)
		}
	}
	if err := s.enterStream(); err != nil {
		return err
	}
	defer s.streams.leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()

	opening, opened := context.WithTimeout(ctx, callTimeout)
	stream, err := s.registry.Watch(opening, from, epoch)
	opened()
	if err != nil {
		return err
	}
	defer stream.Close()

	control := http.NewResponseController(w)
	// The deadline for the request to come would otherwise end the stream.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	if err := s.pump(ctx, w, control, stream); ctx.Err() == nil {
		// Too late for an answer: the reader sees the stream end, and resumes.
		s.log.Info("a stream ended", "caller", who(r), "error", err)
	}
	return nil
}

// pump copies the stream to w, with a ping whenever there is nothing else,
// until one of both ends.
func (s *Server) pump(ctx context.Context, w http.ResponseWriter, control *http.ResponseController, stream *registry.Stream) error {
	out := bufio.NewWriterSize(w, 64<<10)
	for {
		lines, err := s.next(ctx, stream)
		if err != nil {
			return err
		}
		// A reader that takes nothing for so long is as good as gone.
		if err := control.SetWriteDeadline(time.Now().Add(s.timeouts.write)); err != nil {
			return err
		}
		for _, line := range lines {
			if _, err := out.Write(line); err != nil {
				return err
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if err := control.Flush(); err != nil {
			return err
		}
	}
}

func (s *Server) next(ctx context.Context, stream *registry.Stream) ([][]byte, error) {
	wait, cancel := context.WithTimeout(ctx, s.ping)
	defer cancel()
	lines, err := stream.Next(wait)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		ping, err := stream.Ping()
		return [][]byte{ping}, err
	}
	return lines, err
}
