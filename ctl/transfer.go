package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/ctl/output"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/masterstate"
)

func (s *session) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take over what the agents of a state hold; - reads the standard input",
		Long: "Take over what the agents of a state hold: the answer of DC/OS's /overlay-master/state, or what export\n" +
			"prints. Each agent's first claim then gets the VTEP and the subnets that it has there.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := s.read(args[0])
			if err != nil {
				return err
			}
			state, err := masterstate.Parse(data)
			if err != nil {
				return usageError{fmt.Errorf("import %s: it is not a state of DC/OS's: %w (see dcos-overlayctl validate)", args[0], err)}
			}
			if err := s.confirm(fmt.Sprintf("Take over what %s hold?", plural(len(state.Agents), "agent"))); err != nil {
				return err
			}
			if !cmd.Flags().Changed("timeout") {
				s.timeout = importTimeout
			}
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				p := s.progress("importing", 1)
				done, err := c.Import(ctx, json.RawMessage(data))
				p.end()
				if err != nil {
					return fmt.Errorf("import %s: %w", args[0], err)
				}
				return s.printer().Print(done, func(r *output.Rows) {
					r.Head("imported", "unchanged", "empty")
					r.Add(done.Imported, done.Unchanged, done.Empty)
				})
			})
		},
	}
	s.yesFlag(cmd)
	return cmd
}

// read reads a file, or the standard input by the name of -.
func (s *session) read(path string) ([]byte, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(s.env.stdin)
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("read %s: %w", path, err)}
	}
	return data, nil
}

func (s *session) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Print the state of all agents, as import takes it",
		Long: "Print the state of all agents, as import takes it: DC/OS's, in JSON. With -o yaml it is for reading\n" +
			"alone.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.ask(cmd.Context(), func(ctx context.Context, c *apiclient.Client) error {
				state, err := c.State(ctx)
				if err != nil {
					return fmt.Errorf("read the state: %w", err)
				}
				p := s.printer()
				if p.Format == output.Table {
					p.Format = output.JSON // there is no other shape that import takes
				}
				return p.Print(state, nil)
			})
		},
	}
}
