package packaging

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rpms asks Debian's rpm what is in the packages.
func rpms(t *testing.T, out, arch string) {
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
	for _, p := range []struct {
		name                        string
		files, configs, scripts, it []string
	}{
		{
			name: "dcos-overlay-agent",
			files: []string{
				"/etc/dcos-overlay", "/etc/dcos-overlay/agent.json", "/etc/dcos-overlay/companion.env",
				"/usr/bin/dcos-overlay-companion",
				"/usr/lib/NetworkManager/conf.d/90-dcos-overlay.conf",
				"/usr/lib/systemd/network/10-dcos-overlay.link", "/usr/lib/systemd/network/10-dcos-overlay.network",
				"/usr/lib/systemd/system/dcos-overlay-companion.service",
				"/usr/lib/tmpfiles.d/dcos-overlay.conf",
				"/usr/libexec/cni/dcos-ipam", "/usr/libexec/cni/dcos-overlay", "/usr/libexec/cni/dcos-overlay-call",
			},
			configs: []string{"/etc/dcos-overlay/agent.json", "/etc/dcos-overlay/companion.env"},
			scripts: []string{"postinstall", "preuninstall", "postuninstall"},
			it:      []string{"iptables"},
		},
		{
			name: "dcos-overlay-coordinator",
			files: []string{
				"/etc/dcos-overlay", "/etc/dcos-overlay/coordinator.env", "/etc/dcos-overlay/network.json",
				"/usr/bin/dcos-overlay-coordinator",
				"/usr/lib/systemd/system/dcos-overlay-coordinator.service",
			},
			configs: []string{"/etc/dcos-overlay/coordinator.env", "/etc/dcos-overlay/network.json"},
			scripts: []string{"postinstall", "preuninstall", "postuninstall"},
		},
		{
			name: "dcos-overlayctl",
			files: []string{
				"/usr/bin/dcos-overlayctl",
				"/usr/share/bash-completion/completions/dcos-overlayctl",
				"/usr/share/fish/vendor_completions.d/dcos-overlayctl.fish",
				"/usr/share/zsh/site-functions/_dcos-overlayctl",
			},
		},
	} {
		path := filepath.Join(out, p.name+"-"+strings.TrimSuffix(debVersion, "-1")+"-1."+machine+".rpm")
		query := func(args ...string) []string {
			return strings.Fields(command(t, "", append(append([]string{"rpm", "-qp"}, args...), path)...))
		}
		// Manuals and documents come and go; all else is counted.
		files := slices.DeleteFunc(query("-l"), func(f string) bool {
			return strings.HasPrefix(f, "/usr/share/doc/"+p.name) || strings.HasPrefix(f, "/usr/share/man/man1/dcos-overlayctl")
		})
		slices.Sort(files)
		if !slices.Equal(files, p.files) {
			t.Errorf("%s has the files %q, not %q", p.name, files, p.files)
		}
		if got := query("-c"); !slices.Equal(got, p.configs) {
			t.Errorf("%s: the configuration is %q, not %q", p.name, got, p.configs)
		}
		if got := query("--requires"); !slices.Equal(got, p.it) {
			t.Errorf("%s requires %q, not %q", p.name, got, p.it)
		}
		if got := query("--qf", "%{ARCH} %{BUILDHOST} %{BUILDTIME}"); !slices.Equal(got, []string{machine, "localhost", "1767225600"}) {
			t.Errorf("%s: it is %q", p.name, got)
		}
		var scripts []string
		for _, m := range regexp.MustCompile(`(?m)^(\w+) scriptlet`).FindAllStringSubmatch(command(t, "", "rpm", "-qp", "--scripts", path), -1) {
			scripts = append(scripts, m[1])
		}
		if !slices.Equal(scripts, p.scripts) {
			t.Errorf("%s has the scripts %q, not %q", p.name, scripts, p.scripts)
		}
		// Noreplace: an upgrade leaves what the operator wrote.
		for line := range strings.Lines(command(t, "", "rpm", "-qp", "--qf", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", path)) {
			if f := strings.Fields(line); slices.Contains(p.configs, f[0]) && (len(f) != 2 || f[1] != "cn") {
				t.Errorf("%s: %s has the flags %q, not cn", p.name, f[0], f[1:])
			}
		}
		command(t, "", "rpm", "-K", "--nosignature", path)
	}
}
