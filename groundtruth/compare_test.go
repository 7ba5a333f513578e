package groundtruth

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/linux"
)

const tick = 10 * time.Millisecond // USER_HZ is 100 on amd64

// seen is what outsight saw.
type seen struct {
	boot  time.Time
	pti   bool
	tasks map[key]*linux.Process
}

func (s seen) add(p *linux.Process) { s.tasks[key{int(p.TID), uint64(p.SinceBoot / tick)}] = p }

// differences holds what was seen against what the guest said before and after.
func differences(s seen, before, after account, threads bool) []string {
	var diffs []string
	btime := time.Unix(after.system.BootTime, 0)
	if !near(s.boot, btime) {
		diffs = append(diffs, fmt.Sprintf("booted %v, the guest says %v", s.boot, btime))
	}
	for k, a := range before.rows {
		b, stayed := after.rows[k]
		if !stayed {
			continue // died meanwhile: seen or not, both are right
		}
		p, ok := s.tasks[k]
		if !ok {
			diffs = append(diffs, fmt.Sprintf("%d (%q) is in the guest's list before and after, but was not seen", k.tid, a.Comm))
			continue
		}
		if want := btime.Add(time.Duration(a.StartTicks) * tick); !near(p.Started, want) {
			diffs = append(diffs, fmt.Sprintf("%d (%q): started %v, the guest says %v", k.tid, a.Comm, p.Started, want))
		}
		for _, d := range rowDifferences(p, a, b, threads) {
			diffs = append(diffs, fmt.Sprintf("%d (%q): %s", k.tid, a.Comm, d))
		}
	}
	diffs = append(diffs, wrongWorkers(s, before, after)...)
	for k, p := range s.tasks {
		_, was := before.rows[k]
		if _, is := after.rows[k]; was || is {
			continue
		}
		// Neither before nor after: it lived in between.
		born := p.SinceBoot
		if born < time.Duration(before.system.BootClock)-tick || born > time.Duration(after.end) {
			diffs = append(diffs, fmt.Sprintf("%d (%q), born %v after boot, was seen but is not in the guest's lists of %v and %v",
				k.tid, p.Comm, born, time.Duration(before.system.BootClock), time.Duration(after.system.BootClock)))
		}
	}
	return diffs
}

// near reports whether a and b are the same time but for what btime, in whole
// seconds, leaves open.
func near(a, b time.Time) bool { return a.Sub(b).Abs() <= time.Second+tick }

// field compares one value with the guest's two answers, one of which must be it.
func field(diffs *[]string, name string, got, before, after any) {
	g, x, y := fmt.Sprintf("%q", fmt.Sprint(got)), fmt.Sprintf("%q", fmt.Sprint(before)), fmt.Sprintf("%q", fmt.Sprint(after))
	if g != x && g != y {
		*diffs = append(*diffs, fmt.Sprintf("%s is %.300s, the guest says %.300s, then %.300s", name, g, x, y))
	}
}

// rowDifferences compares one task. a and b are the guest's two answers: where
// they agree there is one right value.
func rowDifferences(p *linux.Process, a, b row, threads bool) (diffs []string) {
	check := func(name string, got, before, after any) { field(&diffs, name, got, before, after) }
	between := func(field string, got, low, high uint64) {
		if got < low || got > high {
			diffs = append(diffs, fmt.Sprintf("%s is %d, not between %d and %d as the guest says", field, got, low, high))
		}
	}
	for _, m := range p.Missing {
		diffs = append(diffs, fmt.Sprintf("%s missing: %v", m.Part, m.Err))
	}
	check("pid", p.PID, a.PID, b.PID)
	check("ppid", p.PPID, a.PPID, b.PPID)
	c := p.Creds
	check("uids", []uint32{c.UID, c.EUID, c.SUID, c.FSUID}, a.UIDs, b.UIDs)
	check("gids", []uint32{c.GID, c.EGID, c.SGID, c.FSGID}, a.GIDs, b.GIDs)
	check("state", p.State, a.State, b.State)
	check("threads", p.Threads, a.Threads, b.Threads)
	check("comm", stable(p), stableText(a), stableText(b))
	check("kernel thread", p.KernelThread, a.KernelThread, b.KernelThread)
	check("tty", p.TTY, ttyName(a.TTY), ttyName(b.TTY))
	check("cgroup", p.Cgroup, unified(a.Cgroup), unified(b.Cgroup))
	check("container", p.Container.ID, containerID(unified(a.Cgroup)), containerID(unified(b.Cgroup)))
	if n := len(a.NSPID); n > 0 && len(b.NSPID) == n && p.NS.PID != 0 {
		nspid := int(p.NSPID)
		check("pid in its namespace", nspid, a.NSPID[n-1], b.NSPID[n-1])
	}
	ns := p.NS
	for name, got := range map[string]uint64{
		"pid": ns.PID, "mnt": ns.Mount, "net": ns.Network, "uts": ns.UTS, "ipc": ns.IPC,
		"user": ns.User, "cgroup": ns.Cgroup, "time": ns.Time,
	} {
		check(name+" namespace", got, inode(a.NS[name]), inode(b.NS[name]))
	}
	// Each of the two numbers of /proc is cut to whole ticks.
	low, high := a.UserTicks+a.SystemTicks, b.UserTicks+b.SystemTicks+2
	between("cpu time", uint64(p.CPUTime/tick), low, high)
	if threads && a.PID != a.TID {
		return diffs // memory is the process's
	}
	exe := p.Exe
	if p.ExeDeleted {
		exe += " (deleted)"
	}
	check("exe", exe, string(a.Exe), string(b.Exe))
	check("vsize", p.VSize, a.VSize, b.VSize)
	check("args", joined(p.Args), trimmed(a.Cmdline), trimmed(b.Cmdline))
	if a.RSSRollup != nil && b.RSSRollup != nil {
		check("rss", p.RSS, *a.RSSRollup*1024, *b.RSSRollup*1024)
	} else if a.RSSRollup == nil && b.RSSRollup == nil && a.RSSStatus != nil && b.RSSStatus != nil {
		// Without CONFIG_PROC_PAGE_MONITOR there are three counters only (files, anonymous,
		// shmem), of which each of the guest's two processors keeps up to 32 pages to itself.
		const lag = 3 * 2 * 32 * 4096
		low, high := min(*a.RSSStatus, *b.RSSStatus)*1024, max(*a.RSSStatus, *b.RSSStatus)*1024
		between("rss", p.RSS, uint64(max(low-lag, 0)), uint64(high+lag))
	} else if a.RSSStatus == nil && b.RSSStatus == nil {
		check("rss", p.RSS, 0, 0)
	}
	return diffs
}

// stable is a task's name without what a worker works on, which changes by the
// moment; see wrongWorkers.
func stable(p *linux.Process) string { return withoutWork(p.Comm, p.KernelThread) }

func stableText(r row) string { return withoutWork(string(r.Comm), r.KernelThread) }

func withoutWork(comm string, kernelThread bool) string {
	if i := strings.IndexAny(comm, "+-"); kernelThread && i > 0 && strings.HasPrefix(comm, "kworker/") && !strings.HasPrefix(comm, "kworker/R-") {
		return comm[:i]
	}
	return comm
}

// wrongWorkers compares the whole names of workers. Looking at the guest from
// inside makes it work, so some always differ; if most did, the view would be
// wrong.
func wrongWorkers(s seen, before, after account) []string {
	var wrong []string
	workers := 0
	for k, a := range before.rows {
		b, stayed := after.rows[k]
		p := s.tasks[k]
		if !stayed || p == nil || !strings.HasPrefix(p.Comm, "kworker/") {
			continue
		}
		workers++
		if p.Comm != string(a.Comm) && p.Comm != string(b.Comm) {
			wrong = append(wrong, fmt.Sprintf("%d: comm is %q, the guest says %q, then %q", k.tid, p.Comm, a.Comm, b.Comm))
		}
	}
	if len(wrong)*2 > workers {
		return wrong
	}
	return nil
}

// joined undoes the splitting of arguments.
func joined(args []string) string { return strings.Join(args, "\x00") }

func trimmed(cmdline []byte) string { return string(bytes.TrimSuffix(cmdline, []byte{0})) }

// unified is the path in the unified hierarchy.
func unified(lines []string) string {
	for _, l := range lines {
		if path, ok := strings.CutPrefix(l, "0::"); ok {
			return strings.TrimSuffix(path, " (deleted)")
		}
	}
	return ""
}

var idRE = regexp.MustCompile(`[0-9a-f]{64}`)

// containerID finds the identifier in another way than the view does.
func containerID(cgroup string) string {
	if ids := idRE.FindAllString(cgroup, -1); ids != nil {
		return ids[len(ids)-1]
	}
	if _, name, ok := strings.Cut(cgroup, "/lxc.payload."); ok {
		name, _, _ = strings.Cut(name, "/")
		return name
	}
	if _, name, ok := strings.Cut(cgroup, "/lxc/"); ok {
		name, _, _ = strings.Cut(name, "/")
		return name
	}
	return ""
}

// inode takes the number out of "pid:[4026531836]".
func inode(link string) uint64 {
	_, n, _ := strings.Cut(strings.TrimSuffix(link, "]"), "[")
	v, _ := strconv.ParseUint(n, 10, 64)
	return v
}

// ttyName names a terminal by its device number, as ps(1) does.
func ttyName(nr int) string {
	major, minor := nr>>8&0xfff, nr&0xff|nr>>12&0xfff00
	switch {
	case nr == 0:
		return ""
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)*256+minor)
	case major == 4 && minor >= 64:
		return fmt.Sprintf("ttyS%d", minor-64)
	case major == 4:
		return fmt.Sprintf("tty%d", minor)
	case major == 5 && minor == 1:
		return "console"
	}
	return fmt.Sprintf("%d:%d", major, minor)
}
