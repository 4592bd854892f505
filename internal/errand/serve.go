package errand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Do makes one call; a result of nil is none.
type Do func(ctx context.Context, r Request) (result any, err error)

// Serve does errands until in ends; open makes what does them. Calls that are
// under way when in ends are given up.
func Serve(ctx context.Context, in io.Reader, out io.Writer, open func(Options) (Do, error)) error {
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	var o Options
	if err := dec.Decode(&o); err != nil {
		return fmt.Errorf("read whom to ask: %w", err)
	}
	do, err := open(o)
	if wrote := enc.Encode(answerOf(err)); wrote != nil || err != nil {
		return wrote
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	requests := make(chan Request)
	go func() {
		for {
			var r Request
			if err := dec.Decode(&r); err != nil {
				cancel(err)
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case r := <-requests:
			if err := answer(ctx, enc, do, r); err != nil {
				return err
			}
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, io.EOF) {
				return fmt.Errorf("read what to ask: %w", err)
			}
			return nil
		}
	}
}

func answer(ctx context.Context, enc *json.Encoder, do Do, r Request) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.TimeoutMS)*time.Millisecond)
	defer cancel()
	result, err := do(ctx, r)
	if wrote := enc.Encode(answerOf(err)); wrote != nil || err != nil || result == nil {
		return wrote
	}
	return enc.Encode(result)
}
