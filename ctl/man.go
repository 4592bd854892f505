package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/dcos/dcos-overlay/internal/version"
)

// manCommand writes the manual pages that packages install. They bear the date
// that SOURCE_DATE_EPOCH says, if it is set.
func (s *session) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIRECTORY",
		Short: "Write a manual page for each command",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return usageError{fmt.Errorf("man: %w", err)}
			}
			header := &doc.GenManHeader{Section: "1", Source: "dcos-overlay " + version.String(), Manual: "dcos-overlay"}
			if err := doc.GenManTree(cmd.Root(), header, args[0]); err != nil {
				return usageError{fmt.Errorf("man: write the pages to %s: %w", args[0], err)}
			}
			return nil
		},
	}
}
