package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the kernel's unit of processor time in /proc, USER_HZ: the same on
// every machine that Go runs on.
const tick = time.Second / 100

// cpuOf is the processor time that a process has had.
func cpuOf(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the processor time: %w", err)
	}
	// The name, in parentheses, may hold anything; utime and stime are the
	// 12th and 13th fields after it.
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	var sum time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// usage is the processor time of a server and of this process, where the
// clients are.
type usage struct{ server, clients time.Duration }

func usageOf(server int) (u usage, err error) {
	if u.server, err = cpuOf(server); err == nil {
		u.clients, err = cpuOf(os.Getpid())
	}
	return u, err
}
