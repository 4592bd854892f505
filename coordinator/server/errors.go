package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/dcos/dcos-overlay/coordinator/registry"
	"github.com/dcos/dcos-overlay/internal/api"
)

// statusClosed is nginx's word for a caller that went away before the answer.
const statusClosed = 499

func fail(code api.Code, format string, args ...any) *api.Error {
	return &api.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// answer is what the caller is told of err: an *api.Error as it stands, of
// anything else only of what kind it is.
func answer(err error) *api.Error {
	var e *api.Error
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		e = fail(e.Code, "%s", e.Message)
	case errors.As(err, &large):
		e = fail(api.CodeTooLarge, "the body has more than %d bytes", large.Limit)
	case errors.Is(err, registry.ErrUnavailable):
		e = fail(api.CodeUnavailable, "the coordinator can't use etcd%s: what was asked for may or may not have happened; try again", reason(err))
	default:
		e = fail(api.CodeInternal, "the coordinator failed: its log says why")
	}
	e.Status = statusOf(e.Code)
	return e
}

// reason says why etcd does not serve, where that is etcd's own word or the
// want of any.
func reason(err error) string {
	var word rpctypes.EtcdError
	switch {
	case errors.As(err, &word):
		return " (" + strings.TrimPrefix(word.Error(), "etcdserver: ") + ")"
	case errors.Is(err, context.DeadlineExceeded):
		return " (no answer in time)"
	}
	return ""
}

func statusOf(code api.Code) int {
	switch code {
	case api.CodeInvalid:
		return http.StatusBadRequest
	case api.CodeUnauthenticated:
		return http.StatusUnauthorized
	case api.CodeForbidden:
		return http.StatusForbidden
	case api.CodeNotFound:
		return http.StatusNotFound
	case api.CodeConflict, api.CodeDisabled, api.CodeExhausted:
		return http.StatusConflict
	case api.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case api.CodeUnavailable, api.CodeBusy:
		return http.StatusServiceUnavailable
	case api.CodeNotSupported:
		return http.StatusMethodNotAllowed
	}
	return http.StatusInternalServerError
}

// handle makes an http.Handler of h: it bounds the body, to limit bytes, and
// answers errors.
func (s *Server) handle(h handler, limit int64) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(out, r.Body, limit)
		w := &tracked{ResponseWriter: out}
		defer s.rescue(w, r)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		err := h(w, r)
		if err == nil {
			return
		}
		e := answer(err)
		if why := s.registry.Trouble(); why != nil && errors.Is(err, registry.ErrUnavailable) {
			e.Message = fmt.Sprintf("the coordinator can't use etcd: %v. What was asked for may or may not have happened; try again", why)
		}
		if r.Context().Err() != nil {
			s.log.Debug("the caller went away", "method", r.Method, "path", r.URL.Path, "caller", r.RemoteAddr)
			w.WriteHeader(statusClosed)
			return
		}
		if e.Status >= http.StatusInternalServerError && e.Code != api.CodeBusy {
			s.log.Error("a call failed", "method", r.Method, "path", r.URL.Path, "caller", r.RemoteAddr, "error", err)
		} else {
			s.log.Debug("a call was refused", "method", r.Method, "path", r.URL.Path, "caller", r.RemoteAddr, "error", e)
		}
		setRetryAfter(w.Header(), e.Code)
		s.write(w, e.Status, api.ErrorBody{Error: e})
	})
}

// write answers with v in JSON.
func (s *Server) write(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.log.Error("an answer can't be encoded", "error", err)
		status, body = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"the coordinator failed: its log says why"}}`)
	}
	s.writeJSON(w, status, body)
}

// writeJSON answers with body, which is one value in JSON.
func (s *Server) writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A caller that does not take its answer has gone away.
	_, _ = w.Write(append(body, '\n'))
}

// read decodes the one JSON value that r's body must be.
func read(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err == nil {
			err = errors.New("something follows the first value")
		}
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return err
	case errors.Is(err, io.EOF):
		return fail(api.CodeInvalid, "the body is empty: it must be a JSON object")
	}
	return fail(api.CodeInvalid, "the body is not what %s %s takes: %v", r.Method, r.URL.Path, err)
}

// bounded is r's context with the deadline of a call.
func bounded(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), callTimeout)
}

// patient is r's context with the deadline of a call that changes many agents.
func patient(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), patientTimeout)
}
