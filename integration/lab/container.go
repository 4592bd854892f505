package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dcos/dcos-overlay/integration/lab/hostinit"
)

// Container is the network of one container, whoever made it. Its Place runs
// programs of the host there.
type Container struct {
	Place

	// ID is the container's name.
	ID string
	// Netns is the path of its network namespace in the host.
	Netns string
	// IP4 and IP6 are its addresses; that of a family that it has not is not
	// valid.
	IP4, IP6 netip.Addr
	// Result is what whoever attached it has said: a CNI result, or docker
	// inspect.
	Result []byte

	remove func(context.Context) error
}

func (h *Host) newContainer(id, ns string) *Container {
	return &Container{
		Place: Place{host: h, name: h.Name + "/" + id, prefix: []string{"nsenter", "--net=" + ns}},
		ID:    id,
		Netns: ns,
	}
}

// Addrs are its addresses; that of a family that it has not is not valid.
func (c *Container) Addrs() (v4, v6 netip.Addr) { return c.IP4, c.IP6 }

// Delete detaches the container from its network and removes it.
func (c *Container) Delete(ctx context.Context) error { return c.remove(ctx) }

// setAddrs reads the addresses of a CNI result of any version.
func (c *Container) setAddrs(result []byte) error {
	type ip struct{ IP, Address string }
	var r struct {
		IP4, IP6 ip   // up to 0.2.0
		IPs      []ip // from 0.3.0 on
	}
	if err := json.Unmarshal(result, &r); err != nil {
		return fmt.Errorf("reading the result %q: %w", result, err)
	}
	for _, a := range append(r.IPs, r.IP4, r.IP6) {
		text := a.IP + a.Address
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("reading the result %q: %w", result, err)
		}
		if p.Addr().Is4() {
			c.IP4 = p.Addr()
		} else {
			c.IP6 = p.Addr()
		}
	}
	return nil
}

// cniConfigDir is where cnitool's configurations are written.
const cniConfigDir = "/etc/cni/net.d"

// CNIToolContainer attaches a new network namespace by the real cnitool. conf
// is a plugin's configuration or a list of them; env, such as CAP_ARGS=…, goes
// to cnitool.
func (h *Host) CNIToolContainer(ctx context.Context, id string, conf []byte, env ...string) (*Container, error) {
	var head struct {
		Name    string
		Plugins []json.RawMessage
	}
	if err := json.Unmarshal(conf, &head); err != nil {
		return nil, fmt.Errorf("reading the CNI configuration: %w", err)
	}
	ext := ".conf"
	if head.Plugins != nil {
		ext = ".conflist"
	}
	if err := h.WriteFile(ctx, path.Join(cniConfigDir, head.Name+ext), conf); err != nil {
		return nil, err
	}
	// Runtimes set up the loopback link themselves.
	if _, err := h.Run(ctx, "sh", "-ec", `ip netns add "$0"; ip -n "$0" link set lo up`, id); err != nil {
		return nil, err
	}
	c := h.newContainer(id, "/run/netns/"+id)
	tool := func(ctx context.Context, verb string) (string, error) {
		args := append([]string{"env", "CNI_PATH=" + h.lab.bin, "NETCONFPATH=" + cniConfigDir}, env...)
		return h.Run(ctx, append(args, "cnitool", verb, head.Name, c.Netns)...)
	}
	c.remove = func(ctx context.Context) error {
		if _, err := tool(ctx, "del"); err != nil {
			return err
		}
		_, err := h.Run(ctx, "ip", "netns", "del", id)
		return err
	}
	out, err := tool(ctx, "add")
	if err == nil {
		c.Result = []byte(out)
		err = c.setAddrs(c.Result)
	}
	if err != nil {
		return nil, errors.Join(err, c.remove(ctx))
	}
	return c, nil
}

// MesosTask is a container as Mesos's network/cni isolator attaches it.
type MesosTask struct {
	// ID is the container's.
	ID string
	// Conf is the content of the file in the CNI configuration directory:
	// one plugin's configuration.
	Conf []byte
	// Ifname is the interface's name; empty means eth0.
	Ifname string
	// NetworkInfo are more fields of the network_info that Mesos adds to the
	// configuration, such as port_mappings; nil means none.
	NetworkInfo map[string]any
	// PluginsDir is --network_cni_plugins_dir; empty means the lab's
	// programs.
	PluginsDir string
	// Netns is the handle of the network namespace; MesosContainer sets it.
	// Empty means that there is none, and CNI_NETNS is not set.
	Netns string
}

// mesosRoot is where the isolator keeps handles and checkpoints:
// src/slave/containerizer/mesos/isolators/network/cni/paths.hpp in Mesos.
const mesosRoot = "/run/mesos/isolators/network/cni"

// MesosContainer attaches a container as Mesos does: a new process in a new
// network namespace, its handle bound below mesosRoot, the plugin exec'd.
// Mesos understands only results of CNI 0.1 and 0.2, so any other is an error.
func (h *Host) MesosContainer(ctx context.Context, t MesosTask) (*Container, error) {
	dir := path.Join(mesosRoot, t.ID)
	t.Netns = path.Join(dir, "ns")
	c := h.newContainer(t.ID, t.Netns)
	pause, err := h.start(ctx, h.Name+"-"+t.ID, hostinit.Request{Args: []string{"probe", "pause"}, NewNet: true})
	if err != nil {
		return nil, err
	}
	c.remove = func(ctx context.Context) error {
		// As the isolator's cleanup: the container's processes are gone
		// first, and a DEL that fails leaves all as it is.
		if err := pause.Kill(); err != nil {
			return err
		}
		if err := mesosError(h.MesosDel(ctx, t)); err != nil {
			return fmt.Errorf("%s: detaching %s: %w", h.Name, t.ID, err)
		}
		_, err := h.Run(ctx, "sh", "-c", `umount "$0/ns" && rm -r "$0"`, dir)
		return err
	}
	// The isolator makes its root a shared mount of its own, as below, so
	// that an unmount reaches the containers' copies of it.
	_, err = h.Run(ctx, "sh", "-ec", `
		mkdir -p "$1"
		exec 9>"$1.lock"
		flock 9
		if ! mountpoint -q "$1"; then
			mount --bind "$1" "$1"
			mount --make-private "$1"
			mount --make-shared "$1"
		fi
		mkdir -p "$2"
		touch "$2/ns"
		mount --bind "/proc/$3/ns/net" "$2/ns"
		nsenter --net="$2/ns" ip link set lo up`,
		"sh", mesosRoot, dir, fmt.Sprint(pause.PID))
	if err != nil {
		return nil, errors.Join(err, pause.Kill())
	}
	r, err := h.MesosAdd(ctx, t)
	if err := mesosError(r, err); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: attaching %s: %w", h.Name, t.ID, err), c.remove(ctx))
	}
	c.Result = []byte(r.Stdout)
	if strings.Contains(r.Stdout, `"ips"`) {
		err = fmt.Errorf("Mesos can't read the result of %s: it is newer than CNI 0.2: %s", t.ID, r.Stdout)
	} else {
		err = c.setAddrs(c.Result)
	}
	if err != nil {
		return nil, errors.Join(err, c.remove(ctx))
	}
	return c, nil
}

// MesosAdd execs the plugin to attach a container, in the isolator's way; the
// namespace is the caller's. A failed plugin is no error here.
func (h *Host) MesosAdd(ctx context.Context, t MesosTask) (Result, error) {
	return h.mesosExec(ctx, "ADD", t)
}

// MesosDel execs the plugin to detach a container, in the isolator's way. A
// failed plugin is no error here.
func (h *Host) MesosDel(ctx context.Context, t MesosTask) (Result, error) {
	return h.mesosExec(ctx, "DEL", t)
}

func (h *Host) mesosExec(ctx context.Context, verb string, t MesosTask) (Result, error) {
	plugin, conf, err := t.conf()
	if err != nil {
		return Result{}, fmt.Errorf("the CNI configuration of %s: %w", t.ID, err)
	}
	if t.PluginsDir == "" {
		t.PluginsDir = h.lab.bin
	}
	if t.Ifname == "" {
		t.Ifname = "eth0"
	}
	env := []string{
		"CNI_COMMAND=" + verb,
		"CNI_CONTAINERID=" + t.ID,
		"CNI_PATH=" + t.PluginsDir,
		"CNI_IFNAME=" + t.Ifname,
		// Mesos hands on its own PATH.
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	if t.Netns != "" {
		env = append(env, "CNI_NETNS="+t.Netns)
	}
	return h.Exec(ctx, Command{
		Args:  []string{path.Join(t.PluginsDir, plugin)},
		Env:   env,
		Stdin: conf,
	})
}

// conf is the configuration with what the isolator adds, network_info, which
// is the protobuf message NetworkInfo in JSON; and the plugin's name.
func (t MesosTask) conf() (plugin string, conf []byte, err error) {
	var fields map[string]any
	if err := json.Unmarshal(t.Conf, &fields); err != nil {
		return "", nil, err
	}
	name, _ := fields["name"].(string)
	plugin, _ = fields["type"].(string)
	if name == "" || plugin == "" {
		return "", nil, fmt.Errorf("without name and type Mesos skips it: %s", t.Conf)
	}
	info := map[string]any{"name": name}
	maps.Copy(info, t.NetworkInfo)
	args, _ := fields["args"].(map[string]any)
	if args == nil {
		args = map[string]any{}
	}
	args["org.apache.mesos"] = map[string]any{"network_info": info}
	fields["args"] = args
	conf, err = json.Marshal(fields)
	return plugin, conf, err
}

// mesosError is the failure of a plugin as Mesos reports it.
func mesosError(r Result, err error) error {
	if err != nil || r.Code == 0 {
		return err
	}
	return fmt.Errorf("the CNI plugin failed with %s: stdout='%s', stderr='%s'", exitText(r.Code), r.Stdout, r.Stderr)
}

func exitText(code int) string {
	if code > 128 {
		return unix.Signal(code - 128).String()
	}
	return fmt.Sprintf("status %d", code)
}
