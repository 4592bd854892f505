package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/ctl/configfile"
	"github.com/dcos/dcos-overlay/ctl/output"
)

// validated is one file's verdict.
type validated struct {
	File     string          `json:"file"`
	Kind     configfile.Kind `json:"kind"`
	Problems []problem       `json:"problems"`
}

type problem struct {
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

func (s *session) validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE...",
		Short: "List all that is wrong with configuration files; - reads the standard input",
		Long: "List all that is wrong with configuration files, each with its line. Which kind a file is of is told by\n" +
			"its content: agent.json, network configuration (DC/OS's master.json, config.yaml, or the object by\n" +
			"itself), CNI configuration (.conf, .conflist), or a state. It asks no coordinator, and exits with 1 if\nanything is wrong.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			out := []validated{}
			wrong := false
			for _, path := range args {
				data, err := s.read(path)
				if err != nil {
					return err
				}
				v := validated{File: path, Problems: []problem{}}
				kind, problems := configfile.Check(data)
				v.Kind = kind
				for _, p := range problems {
					v.Problems = append(v.Problems, problem{p.Line, p.Column, p.Path, p.Message})
				}
				wrong = wrong || len(problems) > 0
				out = append(out, v)
			}
			err := s.printer().Print(out, func(r *output.Rows) {
				for _, v := range out {
					for _, p := range v.Problems {
						r.Add(p.text(v.File))
					}
					if len(v.Problems) == 0 {
						r.Add(fmt.Sprintf("%s: ok, a %s", v.File, v.Kind))
					}
				}
			})
			if err == nil && wrong {
				err = errFound
			}
			return err
		},
	}
}

// text is a problem as compilers print theirs.
func (p problem) text(file string) string {
	out := file
	if p.Line > 0 {
		out += fmt.Sprintf(":%d", p.Line)
	}
	if p.Path != "" {
		out += ": " + p.Path
	}
	return out + ": " + p.Message
}
