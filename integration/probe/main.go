// Command probe is what the multi-host tests run inside hosts and containers:
// a static program that serves, dials and streams, and so tells whether and as
// whom one reaches the other. It is the first process of a lab host, too.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dcos/dcos-overlay/integration/lab/hostinit"
)

const usage = `usage:
  probe serve ADDR...                  answer on TCP and UDP: one line, the peer's
                                       address as seen here; on TCP then an echo
  probe dial [-udp] [-4|-6] [-timeout D] ADDR
                                       print the line that "serve" answers
  probe stream [-interval D] [-stall D] ADDR DURATION
                                       keep one TCP connection to "serve" busy
                                       with numbered blocks, verify the echoes,
                                       print the longest gap; SIGTERM ends it
                                       before its time
  probe http [-timeout D] METHOD URL [BODY]
                                       print the status code, then the body
  probe pause                          wait for SIGTERM or SIGINT
  probe init SPEC                      be the first process of a lab host
`

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("no command is given\n" + usage)
	}
	command, args := args[0], args[1:]
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	timeout := flags.Duration("timeout", 5*time.Second, "")
	udp := flags.Bool("udp", false, "")
	v4 := flags.Bool("4", false, "")
	v6 := flags.Bool("6", false, "")
	interval := flags.Duration("interval", 5*time.Millisecond, "")
	stall := flags.Duration("stall", 30*time.Second, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	args = flags.Args()

	switch {
	case command == "serve" && len(args) > 0:
		return serve(args, out)
	case command == "dial" && len(args) == 1:
		network := "tcp"
		if *udp {
			network = "udp"
		}
		if *v4 {
			network += "4"
		} else if *v6 {
			network += "6"
		}
		line, err := dial(network, args[0], *timeout)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, line)
		return nil
	case command == "stream" && len(args) == 2:
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		return stream(args[0], d, *interval, *stall, stop, out)
	case command == "http" && (len(args) == 2 || len(args) == 3):
		return request(args, *timeout, out)
	case command == "pause" && len(args) == 0:
		pause()
		return nil
	case command == "init" && len(args) <= 1:
		return hostinit.Main(strings.Join(args, ""))
	}
	return fmt.Errorf("%s: no such command, or not with %d arguments\n%s", command, len(args), usage)
}

// request makes one HTTP request, METHOD URL and perhaps a body.
func request(args []string, timeout time.Duration, out io.Writer) error {
	req, err := http.NewRequest(args[0], args[1], strings.NewReader(strings.Join(args[2:], "")))
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: timeout}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fmt.Fprintln(out, resp.StatusCode)
	_, err = io.Copy(out, resp.Body)
	return err
}

// pause waits to be ended. As the first process of a container it has to ask
// for the signals, for the kernel spares such a process their default.
func pause() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	<-ended
}
