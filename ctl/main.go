// Command dcos-overlayctl is the operator's: it shows the cluster, changes
// overlays and agents, and finds what is wrong with a host or with a file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/apiclient"
)

// Exit codes, as in the manual.
const (
	exitOK = iota
	// exitFound: it did what it should, and found something wrong.
	exitFound
	// exitUsage: flags, arguments, or a file that can't be read.
	exitUsage
	// exitUnreachable: no coordinator answered, or not in time.
	exitUnreachable
	// exitRefused: the coordinator refused.
	exitRefused
)

// usageError is what the caller must correct.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errFound says that what was looked for was found, and told already.
var errFound = errors.New("something is wrong")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	env := environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, terminal: isTerminal}
	os.Exit(run(ctx, env, os.Args[1:]))
}

// environment is what a command has of the process.
type environment struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	// terminal tells whether a stream is one.
	terminal func(stream any) bool
}

func run(ctx context.Context, env environment, args []string) int {
	cmd := root(env)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errFound) {
		fmt.Fprintf(env.stderr, "dcos-overlayctl: %v\n", err)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var usage usageError
	var refused *api.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, apiclient.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return exitUnreachable
	case errors.As(err, &refused):
		return exitRefused
	}
	return exitFound
}
