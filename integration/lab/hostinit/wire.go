// Package hostinit is the first process of a lab host: it makes the host's
// root file system, then starts programs in the host as the lab asks, and
// reaps what they leave behind. When it ends, the kernel ends the host.
//
// The lab holds one end of a socket pair, hostinit the other (ControlFD). Each
// Request comes with four descriptors: a socket for that one process, and its
// stdin, stdout and stderr. On the process's socket hostinit sends Events and
// takes Signals. All messages are JSON, one a packet.
package hostinit

// ControlFD is the descriptor of hostinit's end of the control socket.
const ControlFD = 3

// MaxMessage bounds one packet. It is below the kernel's default send buffer
// (net.core.wmem_default, 212,992 bytes), above which a packet can't be sent.
const MaxMessage = 128 << 10

// PathDir is the folder of Spec.Bin with what is called by name only.
const PathDir = "path"

// Spec says what root file system a host has. Paths are absolute and free of
// symbolic links.
type Spec struct {
	// Hostname is the host's name.
	Hostname string
	// Dir is the host's directory on the machine's disk; what the host
	// writes is kept there, so a host that starts again finds it.
	Dir string
	// Bin is the directory of programs that the host sees too, read-only and
	// at the same path. Its PathDir comes first in PATH.
	Bin string
	// Plain are directories that are bound from Dir instead of being a layer
	// over the machine's: for Docker, which can't stack its own layers on
	// ours, and for databases.
	Plain []string
	// Hide are paths of the machine that a new host must not see.
	Hide []string
	// New is true at the host's first start.
	New bool
}

// Request asks for one process.
type Request struct {
	Args []string
	// Env is the whole environment. Nil means hostinit's own.
	Env []string
	// Dir is the working directory; empty means /.
	Dir string
	// NewNet gives the process a network namespace of its own.
	NewNet bool
}

// Event is hostinit's word on one process: first either PID or Error, in the
// end Exited.
type Event struct {
	// PID is the process's number inside the host.
	PID int
	// Error says why it could not be started.
	Error string
	// Exited tells that it has ended, with Code, or by Signal if not zero.
	Exited bool
	Code   int
	Signal int
}

// Signal asks for a signal to be sent to a process, or to its process group.
type Signal struct {
	Number int
	Group  bool
}
