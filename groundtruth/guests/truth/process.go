package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// A Process is a line about a process or thread.
type Process struct {
	Kind         string            `json:"kind"` // "process"
	PID          int               `json:"pid"`  // of the process (tgid)
	TID          int               `json:"tid"`
	PPID         int               `json:"ppid"`
	PGRP         int               `json:"pgrp"`
	Session      int               `json:"session"`
	NSPID        []int             `json:"ns_pid"`                  // outermost first
	UIDs         []uint32          `json:"uids"`                    // real, effective, saved, fs
	GIDs         []uint32          `json:"gids"`                    // real, effective, saved, fs
	Groups       []uint32          `json:"groups"`                  // supplementary
	State        string            `json:"state"`                   // the letter
	Threads      int               `json:"threads"`                 //
	StartTicks   uint64            `json:"start_ticks"`             // since boot
	UserTicks    uint64            `json:"utime_ticks"`             //
	SystemTicks  uint64            `json:"stime_ticks"`             //
	VSize        uint64            `json:"vsize"`                   // bytes
	RSSStat      int64             `json:"rss_stat_pages"`          // may lag: per-thread or per-CPU counters
	RSSStatm     int64             `json:"rss_statm_pages"`         //
	SharedStatm  int64             `json:"shared_statm_pages"`      //
	RSSStatus    *int64            `json:"rss_status_kb,omitempty"` // VmRSS; absent without memory
	RSSAnon      *int64            `json:"rss_anon_kb,omitempty"`   //
	RSSFile      *int64            `json:"rss_file_kb,omitempty"`   //
	RSSShmem     *int64            `json:"rss_shmem_kb,omitempty"`  //
	RSSRollup    *int64            `json:"rss_rollup_kb,omitempty"` // exact, by walking the page tables
	Swap         *int64            `json:"swap_kb,omitempty"`       //
	TTY          int               `json:"tty_nr"`                  //
	Flags        uint32            `json:"flags"`                   // PF_…
	KernelThread bool              `json:"kernel_thread"`           //
	Comm         string            `json:"comm"`                    //
	CommRaw      []byte            `json:"comm_b64"`                //
	Exe          *string           `json:"exe"`                     // null: none, or not readable
	ExeRaw       []byte            `json:"exe_b64"`                 //
	Cmdline      []byte            `json:"cmdline_b64"`             // as in /proc: NUL between arguments
	Cgroup       []string          `json:"cgroup"`                  // lines of /proc/PID/cgroup
	NS           map[string]string `json:"ns"`                      // name → link, such as "pid:[4026531836]"
	Nice         int               `json:"nice"`                    //
	TracerPID    int               `json:"tracer_pid"`              //
	CapEff       string            `json:"cap_eff"`                 // hexadecimal
	Seccomp      int               `json:"seccomp"`                 //
}

const pfKthread = 0x00200000

// process reads all about one process; an error means that it has vanished.
func process(dir string, pid, tid int) (*Process, error) {
	p := &Process{Kind: "process", PID: pid, TID: tid}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, err
	}
	if err := p.parseStat(stat); err != nil {
		return nil, err
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil, err
	}
	p.parseStatus(string(status))
	if statm, err := os.ReadFile(dir + "/statm"); err == nil {
		var size int64
		_, _ = fmt.Sscan(string(statm), &size, &p.RSSStatm, &p.SharedStatm) // zeros show
	}
	if cmdline, err := os.ReadFile(dir + "/cmdline"); err == nil {
		p.Cmdline = cmdline
	}
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		p.Exe, p.ExeRaw = &exe, []byte(exe)
	}
	// A thread has no smaps_rollup of its own: its memory is the process's.
	if p.RSSStatus != nil && pid == tid {
		if rollup, err := os.ReadFile(dir + "/smaps_rollup"); err == nil {
			p.RSSRollup = kilobytes(string(rollup), "\nRss:")
		}
	}
	if cgroup, err := os.ReadFile(dir + "/cgroup"); err == nil {
		p.Cgroup = strings.Split(strings.TrimRight(string(cgroup), "\n"), "\n")
	}
	p.NS = namespaces(dir)
	return p, nil
}

var namespaceNames = []string{"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"}

func namespaces(dir string) map[string]string {
	ns := map[string]string{}
	for _, name := range namespaceNames {
		if link, err := os.Readlink(dir + "/ns/" + name); err == nil {
			ns[name] = link
		}
	}
	return ns
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)); comm may hold anything, parentheses
// and line breaks too.
func (p *Process) parseStat(stat []byte) error {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return fmt.Errorf("stat of %d: no comm", p.TID)
	}
	p.CommRaw = stat[open+1 : end]
	p.Comm = string(p.CommRaw)
	f := strings.Fields(string(stat[end+1:]))
	if len(f) < 22 {
		return fmt.Errorf("stat of %d: %d fields", p.TID, len(f))
	}
	number := func(field int) int64 { // numbered as in the manual page
		n, _ := strconv.ParseInt(f[field-3], 10, 64)
		return n
	}
	unsigned := func(field int) uint64 {
		n, _ := strconv.ParseUint(f[field-3], 10, 64)
		return n
	}
	p.State = f[0]
	p.PPID, p.PGRP, p.Session, p.TTY = int(number(4)), int(number(5)), int(number(6)), int(number(7))
	p.Flags = uint32(unsigned(9))
	p.KernelThread = p.Flags&pfKthread != 0
	p.UserTicks, p.SystemTicks = unsigned(14), unsigned(15)
	p.Nice, p.Threads = int(number(19)), int(number(20))
	p.StartTicks, p.VSize, p.RSSStat = unsigned(22), unsigned(23), number(24)
	return nil
}

func (p *Process) parseStatus(status string) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Uid":
			p.UIDs = list(value)
		case "Gid":
			p.GIDs = list(value)
		case "Groups":
			p.Groups = list(value)
		case "NSpid":
			for _, n := range list(value) {
				p.NSPID = append(p.NSPID, int(n))
			}
		case "TracerPid":
			p.TracerPID, _ = strconv.Atoi(value)
		case "CapEff":
			p.CapEff = value
		case "Seccomp":
			p.Seccomp, _ = strconv.Atoi(value)
		}
	}
	p.RSSStatus, p.Swap = kilobytes(status, "\nVmRSS:"), kilobytes(status, "\nVmSwap:")
	p.RSSAnon, p.RSSFile, p.RSSShmem = kilobytes(status, "\nRssAnon:"), kilobytes(status, "\nRssFile:"), kilobytes(status, "\nRssShmem:")
}

func list(value string) []uint32 {
	numbers := []uint32{}
	for _, field := range strings.Fields(value) {
		n, _ := strconv.ParseUint(field, 10, 32)
		numbers = append(numbers, uint32(n))
	}
	return numbers
}

// kilobytes reads "Key:   123 kB"; nil if there is no such line.
func kilobytes(text, key string) *int64 {
	_, rest, ok := strings.Cut(text, key)
	if !ok {
		return nil
	}
	var n int64
	if _, err := fmt.Sscan(rest, &n); err != nil {
		return nil
	}
	return &n
}
