package packaging

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
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
				"/usr/share/man/man8/dcos-ipam.8.gz", "/usr/share/man/man8/dcos-overlay-companion.8.gz", "/usr/share/man/man8/dcos-overlay.8.gz",
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
				"/usr/share/man/man8/dcos-overlay-coordinator.8.gz",
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
		// The command line's pages and documents come and go; all else is counted.
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
		// All is root's, and nobody else may write to it; programs alone can be run.
		for line := range strings.Lines(command(t, "", "rpm", "-qp", "--qf", "[%{FILENAMES} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEMODES:perms}\n]", path)) {
			f := strings.Fields(line)
			want := "-rw-r--r--"
			switch dir := filepath.Dir(f[0]); {
			case dir == "/usr/bin" || dir == "/usr/libexec/cni":
				want = "-rwxr-xr-x"
			case slices.Contains([]string{"/etc/dcos-overlay", "/usr/share/doc/" + p.name, "/usr/share/doc/" + p.name + "/examples"}, f[0]):
				want = "drwxr-xr-x"
			}
			if len(f) != 3 || f[1] != "root:root" || f[2] != want {
				t.Errorf("%s: %s is %q, not root:root and %s", p.name, f[0], f[1:], want)
			}
		}
		command(t, "", "rpm", "-K", "--nosignature", path)
	}
}

// rpmInstalled has rpm install the packages, once more over themselves, which
// is an upgrade to their scripts, and remove them. A bare Debian serves: they
// need no more of a system than a shell.
func rpmInstalled(t *testing.T, out string) {
	ownMounts(t)
	root := t.TempDir()
	command(t, "", "tar", "-C", root, "-xf", strings.TrimSpace(command(t, "", "../scripts/bare-debian.sh")))
	d := debian{root}
	rpm := func(args ...string) {
		t.Helper()
		command(t, "", append([]string{
			"unshare", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts", "sh", "-ec",
			`mount -t proc proc "$0/proc"; exec rpm --root "$0" --dbpath /var/lib/rpm "$@"`, root,
			// Where playSystemd puts its systemctl comes first.
			"--define", "_install_script_path /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		}, args...)...)
	}
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	names := []string{"dcos-overlay-agent", "dcos-overlay-coordinator", "dcos-overlayctl"}
	var files []string
	for _, p := range names {
		files = append(files, filepath.Join(out, p+"-"+strings.TrimSuffix(debVersion, "-1")+"-1."+machine+".rpm"))
	}
	rpm("--initdb")
	before := d.files(t)
	calls := d.playSystemd(t)
	rpm(slices.Concat([]string{"-i", "--nodeps"}, files)...)
	for _, c := range calls() {
		if regexp.MustCompile(`start|enable`).MatchString(c) {
			t.Errorf("the installation calls systemctl %s: its configuration is not complete yet", c)
		}
	}
	for _, p := range programs() {
		runs(t, root, strings.NewReplacer("cni/", "/usr/libexec/cni/", "bin/", "/usr/bin/").Replace(p))
	}
	// It fails where a file's size, sum, mode or owner is not the package's.
	rpm(slices.Concat([]string{"-V", "--nodeps"}, names)...)

	own := filepath.Join(root, "etc/dcos-overlay/agent.json")
	const written = `{"master": ["http://172.17.0.2:64001"]}`
	if err := os.WriteFile(own, []byte(written), 0o644); err != nil {
		t.Fatal(err)
	}
	rpm(slices.Concat([]string{"-U", "--nodeps", "--replacepkgs"}, files)...)
	if got := read(t, own); got != written {
		t.Errorf("the upgrade has replaced the operator's agent.json: %s", got)
	}
	upgrade := calls()
	rpm(slices.Concat([]string{"-e"}, names)...)
	removal := calls()
	for _, unit := range []string{"dcos-overlay-companion.service", "dcos-overlay-coordinator.service"} {
		if !slices.Contains(upgrade, "try-restart "+unit) || slices.Contains(upgrade, "--no-reload disable --now "+unit) {
			t.Errorf("the upgrade calls systemctl %q, which is to restart %s if it runs, and no more", upgrade, unit)
		}
		if !slices.Contains(removal, "--no-reload disable --now "+unit) {
			t.Errorf("the removal calls systemctl %q, and %s goes on", removal, unit)
		}
	}
	d.stopPlaying(t)
	// What the operator wrote is kept under another name, and the data as it is.
	kept := []string{"etc/dcos-overlay/agent.json.rpmsave", "etc/dcos-overlay", "var/lib/dcos-overlay", "run/dcos-overlay"}
	if got := read(t, filepath.Join(root, kept[0])); got != written {
		t.Errorf("of the operator's agent.json the removal has kept %s", got)
	}
	// These are other packages' on a system of rpm.
	shared := []string{
		"usr/lib/NetworkManager/conf.d", "usr/lib/NetworkManager", "usr/libexec/cni", "usr/share/fish/vendor_completions.d", "usr/share/fish",
		"usr/share/zsh/site-functions",
	}
	for _, path := range slices.Concat(kept, shared) {
		if err := os.Remove(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	d.compare(t, before)
}
