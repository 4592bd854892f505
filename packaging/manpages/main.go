// Command manpages writes the manual pages of the daemons and of the plugins,
// out of the reference, which is checked against the code.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
)

// page is one manual page of section 8.
type page struct {
	name, short, synopsis, about string
	// sections are those of the reference that it consists of.
	sections []string
	see      string
}

func pages() []page {
	return []page{
		{
			"dcos-overlay-coordinator", "lease VTEP addresses and subnets to the agents of overlay networks", "**dcos-overlay-coordinator** [*flags*]",
			"It keeps the overlays, and what each agent holds of them, in an etcd inside it or in a cluster of etcd, and tells each agent of all others.",
			[]string{"dcos-overlay-coordinator", "Network configuration", "Ports", "Files and directories"},
			"**dcos-overlay-companion**(8), **dcos-overlayctl**(1)",
		},
		{
			"dcos-overlay-companion", "keep one host's part of overlay networks", "**dcos-overlay-companion** [*flags*]",
			"It keeps all that outlives one container: the VTEP, the ways to other agents, Docker networks, masquerade and firewall; and tells the coordinator how this host is.",
			[]string{"dcos-overlay-companion", "agent.json", "Ports", "Files and directories"},
			"**dcos-overlay-coordinator**(8), **dcos-overlay**(8), **dcos-overlayctl-doctor**(1)",
		},
		{
			"dcos-overlay", "CNI plugins that put containers on overlay networks", "**dcos-overlay**, **dcos-ipam**: run by Mesos and other CNI runtimes",
			"**dcos-overlay** attaches a container; **dcos-ipam** chooses its addresses out of the subnets that this agent leased, within it or under other main plugins.",
			[]string{"CNI configuration", "Error codes of the plugins", "Files and directories"},
			"**dcos-overlay-companion**(8), **dcos-overlayctl-doctor**(1)",
		},
	}
}

func main() {
	version := flag.String("version", "", "the `version` of the programs")
	flag.Parse()
	if err := run(*version, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "manpages:", err)
		os.Exit(1)
	}
}

func run(version string, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: manpages --version VERSION REFERENCE DIRECTORY")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	// As dcos-overlayctl man does it.
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH must say the pages' date: %w", err)
	}
	date := time.Unix(seconds, 0).UTC().Format("Jan 2006")
	chapters := split(string(text))
	for _, p := range pages() {
		source, err := p.markdown(chapters, date, version)
		if err != nil {
			return err
		}
		if err := write(args[1], p.name, md2man.Render([]byte(source))); err != nil {
			return err
		}
	}
	return write(args[1], "dcos-ipam", []byte(".so man8/dcos-overlay.8\n"))
}

func write(dir, name string, text []byte) error {
	return os.WriteFile(filepath.Join(dir, name+".8"), text, 0o644)
}

// split cuts the reference into its chapters, by their titles.
func split(text string) map[string]string {
	chapters := map[string]string{}
	for _, c := range strings.Split(text, "\n## ")[1:] {
		title, body, _ := strings.Cut(c, "\n")
		chapters[title] = body
	}
	return chapters
}

func (p page) markdown(chapters map[string]string, date, version string) (string, error) {
	var out strings.Builder
	fmt.Fprintf(&out, "%% %q %q %q %q %q\n", strings.ToUpper(p.name), "8", date, "dcos-overlay "+version, "dcos-overlay")
	fmt.Fprintf(&out, "# NAME\n%s - %s\n\n# SYNOPSIS\n%s\n\n", p.name, p.short, p.synopsis)
	for i, title := range p.sections {
		body, ok := chapters[title]
		if !ok {
			return "", fmt.Errorf("page %s: the reference has no chapter %q", p.name, title)
		}
		if i == 0 {
			title = "DESCRIPTION\n" + p.about + "\n"
		} else {
			title = strings.ToUpper(title)
		}
		fmt.Fprintf(&out, "# %s\n%s\n", title, plain(body))
	}
	fmt.Fprintf(&out, "# SEE ALSO\n%s\n", p.see)
	return out.String(), nil
}

var link = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)

// plain is a chapter without what a page can't show: links, and tables, which
// become lists of their first column.
func plain(body string) string {
	var out strings.Builder
	var head []string
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, "\n")
		if !strings.HasPrefix(line, "|") {
			head = nil
			if h, ok := strings.CutPrefix(line, "### "); ok {
				line = "## " + h
			}
			out.WriteString(link.ReplaceAllString(line, "$1") + "\n")
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case head == nil:
			head = cells
		case strings.HasPrefix(cells[0], "--"):
		default:
			out.WriteString("\n" + row(head, cells))
		}
	}
	return out.String()
}

// row is one row of a table: its first cell, and below it the others, the last
// one first, for that says what it is.
func row(head, cells []string) string {
	last := len(cells) - 1
	text := ""
	if last > 0 {
		text = cells[last]
	}
	for i := 1; i < last; i++ {
		if cells[i] != "" {
			text += fmt.Sprintf(" (%s: %s)", head[i], cells[i])
		}
	}
	return link.ReplaceAllString(fmt.Sprintf("%s\n: %s\n", cells[0], strings.TrimSpace(text)), "$1")
}
