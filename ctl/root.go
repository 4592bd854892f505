package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dcos/dcos-overlay/ctl/output"
	"github.com/dcos/dcos-overlay/internal/agentconf"
	"github.com/dcos/dcos-overlay/internal/apiclient"
	"github.com/dcos/dcos-overlay/internal/version"
)

const (
	// defaultTimeout bounds one command; a coordinator may take 50 seconds for
	// a change of many agents.
	defaultTimeout = time.Minute
	// importTimeout does so for an import: 65,536 agents take some 10 seconds
	// besides the way of 100 MB.
	importTimeout = 5 * time.Minute
)

// Environment variables that stand for flags which are not given.
const (
	envCoordinator = "DCOS_OVERLAY_COORDINATOR"
	envCAFile      = "DCOS_OVERLAY_CA_FILE"
	envCertFile    = "DCOS_OVERLAY_CERT_FILE"
	envKeyFile     = "DCOS_OVERLAY_KEY_FILE"
)

// session is one call of the program.
type session struct {
	env environment

	coordinators              []string
	agentConfig               string
	caFile, certFile, keyFile string
	format                    string
	timeout                   time.Duration
	yes                       bool
}

func root(env environment) *cobra.Command {
	s := &session{env: env}
	cmd := &cobra.Command{
		Use:           "dcos-overlayctl",
		Short:         "Show and change overlay networks, and find what is wrong with them",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			hint := ""
			if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
				hint = fmt.Sprintf(": is it %s?", strings.Join(like, " or "))
			}
			return usageError{fmt.Errorf("there is no command %q%s (see dcos-overlayctl --help)", args[0], hint)}
		},
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains([]output.Format{output.Table, output.JSON, output.YAML}, output.Format(s.format)) {
				return usageError{fmt.Errorf("--output is %q: it must be table, json or yaml", s.format)}
			}
			if s.timeout <= 0 {
				return usageError{fmt.Errorf("--timeout is %s: it must be more than 0", s.timeout)}
			}
			return nil
		},
	}
	cmd.SetIn(env.stdin)
	cmd.SetOut(env.stdout)
	cmd.SetErr(env.stderr)
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := cmd.PersistentFlags()
	f.StringSliceVar(&s.coordinators, "coordinator", nil, "coordinators to ask, in this order (default $"+envCoordinator+", or master in the agent's file)")
	f.StringVar(&s.agentConfig, "agent-config", "", "the agent's file (default "+agentconf.DefaultPath+", which may be absent)")
	f.StringVar(&s.caFile, "ca-file", "", "PEM file of authorities for https coordinators (default $"+envCAFile+", or ca_file in the agent's file)")
	f.StringVar(&s.certFile, "cert-file", "", "client certificate, PEM (default $"+envCertFile+", or cert_file in the agent's file)")
	f.StringVar(&s.keyFile, "key-file", "", "its key, PEM (default $"+envKeyFile+", or key_file in the agent's file)")
	f.StringVarP(&s.format, "output", "o", string(output.Table), "table, json or yaml")
	completes(cmd, "output", oneOf(string(output.Table), string(output.JSON), string(output.YAML)))
	f.DurationVar(&s.timeout, "timeout", defaultTimeout, "how long a command may take")
	cmd.AddCommand(
		s.statusCommand(), s.agentsCommand(), s.overlaysCommand(), s.overlayCommand(),
		s.importCommand(), s.exportCommand(), s.watchCommand(), s.validateCommand(),
		s.doctorCommand(), s.pingCommand(), s.versionCommand(), s.manCommand(),
	)
	for _, c := range cmd.Commands() {
		strict(c)
	}
	return cmd
}

// strict has wrong arguments, and a command without its verb, exit as wrong
// flags do.
func strict(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
		}
		return nil
	}
	if !c.Runnable() {
		c.RunE = func(cmd *cobra.Command, _ []string) error {
			return usageError{fmt.Errorf("%s: say what to do (see %s --help)", cmd.Name(), cmd.CommandPath())}
		}
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// config is the agent's file, with what flags and environment say instead.
func (s *session) config() (agentconf.Config, error) {
	said := s.coordinators
	if text := s.env.getenv(envCoordinator); len(said) == 0 && text != "" {
		said = strings.Split(text, ",")
	}
	conf, err := agentconf.Load(s.agentConfig)
	if err != nil && (len(said) == 0 || s.agentConfig != "") {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: run it as root, or give --coordinator", err)
		}
		return conf, usageError{err}
	}
	if len(said) > 0 {
		masters, err := urls(said)
		if err != nil {
			return conf, err
		}
		conf.Master = masters
	}
	conf.CAFile = cmp.Or(s.caFile, s.env.getenv(envCAFile), conf.CAFile)
	conf.CertFile = cmp.Or(s.certFile, s.env.getenv(envCertFile), conf.CertFile)
	conf.KeyFile = cmp.Or(s.keyFile, s.env.getenv(envKeyFile), conf.KeyFile)
	if (conf.CertFile == "") != (conf.KeyFile == "") {
		return conf, usageError{errors.New("--cert-file and --key-file: one is of no use without the other; give both or none")}
	}
	return conf, nil
}

// urls reads addresses as the agent's file has them.
func urls(said []string) ([]string, error) {
	file, err := json.Marshal(map[string][]string{"master": said})
	if err != nil {
		return nil, err
	}
	conf, err := agentconf.Parse(file)
	if err != nil {
		return nil, usageError{fmt.Errorf("--coordinator: %s", strings.TrimPrefix(err.Error(), "master: "))}
	}
	return conf.Master, nil
}

// client calls coordinators as an operator.
func (s *session) client() (*apiclient.Client, error) {
	conf, err := s.config()
	if err != nil {
		return nil, err
	}
	return connect(conf, netip.Addr{})
}

// connect calls from the address from, if it is valid.
func connect(conf agentconf.Config, from netip.Addr) (*apiclient.Client, error) {
	c, err := apiclient.New(apiclient.Options{
		Masters: conf.Master, LocalIP: from, CAFile: conf.CAFile, CertFile: conf.CertFile, KeyFile: conf.KeyFile, Patient: true,
	})
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// ask makes one call within the timeout.
func (s *session) ask(ctx context.Context, f func(context.Context, *apiclient.Client) error) error {
	return s.askFrom(ctx, netip.Addr{}, f)
}

// askFrom does so from one of this machine's addresses: a coordinator knows an
// agent by it.
func (s *session) askFrom(ctx context.Context, from netip.Addr, f func(context.Context, *apiclient.Client) error) error {
	conf, err := s.config()
	if err != nil {
		return err
	}
	client, err := connect(conf, from)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("not done within --timeout %s", s.timeout))
	defer cancel()
	err = f(ctx, client)
	if age, stale := client.Age(); stale {
		fmt.Fprintf(s.env.stderr, "dcos-overlayctl: what is shown was so %s ago: the coordinator is not in step with etcd since (dcos-overlayctl status)\n", age)
	}
	return err
}

// printer prints to the standard output, in colours where a person sees them.
func (s *session) printer() output.Printer {
	return output.Printer{
		W: s.env.stdout, Format: output.Format(s.format),
		Colour: s.env.getenv("NO_COLOR") == "" && s.env.getenv("TERM") != "dumb" && s.env.terminal(s.env.stdout),
	}
}
