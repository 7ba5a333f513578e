package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "ftrace-triple",
		Title:     "Traced functions whose users, records and code disagree",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source:    "ftrace_ops_list, ftrace_pages (struct dyn_ftrace), the bytes at every place of a call, ftrace_enabled; ftrace_disabled against tainted_mask and the kernel's log",
		Proves: `The place that every function keeps for tracing holds something that function tracing did not put there, or tracing has a user that is not on its
list, or a user that replaces functions (IPMODIFY) is a module rather than live patching. To be called a hook must be in the code; to stay it must be in the list and the records: who
hides one of the three shows in the others.`,
		Blind: `Users and records where the kernel itself switched tracing off after a warning (ftrace_kill), as it does not keep them any more: that is reported as not checked. What a task that holds text_mutex or ftrace_lock, and is at work, may be changing: that is a gap, and with --every a finding once one task has held the mutex for two minutes. A hook behind the first instruction of a function, and functions without a place for tracing: the check of kernel text finds these. A module that uses
tracing as it is meant, without replacing functions: it is in "outsight ftrace".`,
		Next: `"outsight ftrace TARGET" shows the users of tracing and their functions, "outsight ftrace_functions TARGET" what is traced; disassemble where the call leads. What is
hooked says what for. A live patch of a vendor that brings its own framework may replace functions legally: compare with what is installed.`,
		Example: `While a function was traced, its user was taken off the list, as a rootkit hides its hooks from the guest's own listing:

    $ outsight check lab:demo --only ftrace-triple
    SEVERITY  CONFIDENCE  CHECK          TITLE
    critical  certain     ftrace-triple  kfree_skb_partial is traced for 1 users, of which 0 are on the list`,
		Quick: true,
		Kept:  true,
		Run:   ftraceTriple,
	})
}

// ftraceView is what the check knows of the users of tracing.
type ftraceView struct {
	s      *Subject
	owners *linux.Owners
	named  map[virt.Addr]int // how many users name a function
	all    []*ftraceUser     // those that trace every function, but for some
	off    bool              // nothing is called, whoever asks (kernel.ftrace_enabled)
	broken bool              // the kernel does not keep its records any more
	code   codeWindow
}

// ftraceUser is one user of tracing that is enabled.
type ftraceUser struct {
	*hooks.FtraceOp
	all      bool
	excluded map[virt.Addr]bool
}

// add takes a user in.
func (v *ftraceView) add(u *ftraceUser) {
	if u.all {
		v.all = append(v.all, u)
		return
	}
	for _, ip := range u.Filter {
		if !u.excluded[ip] {
			v.named[ip]++
		}
	}
}

// users is how many users trace the function at ip.
func (v *ftraceView) users(ip virt.Addr) int {
	n := v.named[ip]
	for _, u := range v.all {
		if !u.excluded[ip] {
			n++
		}
	}
	return n
}

func ftraceTriple(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		owners, err := s.Owners()
		if err != nil {
			yield(nil, err)
			return
		}
		// While somebody changes who is traced, users, records and code differ: for a second, if it
		// is every function of a slow guest.
		changing := func() bool { return s.Linux.Held(s.Linux.Space.Live(), tracingMutexes...) }
		underWay := sync.OnceValues(func() ([]linux.Work, bool) { return s.Linux.UnderWay(ctx, tracingMutexes...) })
		before := changing()
		off := s.Linux.TracingOff()
		v := &ftraceView{s: s, owners: owners, named: map[virt.Addr]int{}, broken: off.Broken(), code: codeWindow{s: s}}
		if off.Off && !off.Warned && !yield(v.switchedOff(off.At, "no taint flag W"), nil) {
			return
		}
		if v.broken {
			// The flag is one written bit. The warning itself is in the log, unless newer messages took its place.
			if silent, err := neverWarned(s.Linux.Messages(ctx)); err == nil && silent && !yield(v.switchedOff(off.At, "no warning in the kernel's log, which is whole"), nil) {
				return
			}
			if !yield(nil, tracingEnded("what it traces was not compared with its users")) {
				return
			}
		}
		for f, err := range hooks.FtraceOps(ctx, s.Linux) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !slices.Contains(f.Flags, "enabled") {
				continue
			}
			u := newFtraceUser(f)
			v.add(u)
			if found := v.replaces(u); found != nil && !yield(found, nil) {
				return
			}
		}
		if a, ok := s.Linux.Address("ftrace_enabled"); ok {
			if on, err := s.Linux.Space.U32(a); err == nil {
				v.off = on == 0
			}
		}
		for site, err := range hooks.FtraceRecords(ctx, s.Linux) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			found := v.judge(site)
			if found == nil {
				continue
			}
			// Records are changed before the code, 256 functions at a time (text_poke_queue): they differ for as long as the
			// task that changes them waits for a processor, and no longer than one task is believed.
			if found.Busy = before || changing(); found.Busy {
				work, explains := underWay()
				s.explainedBy(found, work, explains)
			}
			if !yield(found, nil) {
				return
			}
		}
	}
}

// tracingMutexes are held by who changes which functions are traced.
var tracingMutexes = []string{"ftrace_lock", "text_mutex"}

// switchedOff is the finding about tracing that is off for good without a reason: whatever has
// the kernel do that warns, and a warning leaves its mark in the taint flags.
func (v *ftraceView) switchedOff(at virt.Addr, seen string) *Finding {
	return &Finding{
		Severity: High, Confidence: Likely,
		Title:    "function tracing is switched off for good, and the kernel never warned of anything",
		Object:   Object{Kind: "variable", Name: "ftrace_disabled", Addr: at},
		Expected: "0, or the taint flag W and a message, which come with the warning that switches it off (ftrace_kill)",
		Seen:     "not 0, and " + seen,
		Evidence: []Evidence{{Text: "ftrace_disabled", Addr: at, Bytes: bytesAt(v.s, at, 4)}},
		Basis:    "variables of the guest's kernel, compared with each other at one look",
		Show:     "outsight read {} ftrace_disabled 4",
	}
}

// tracingEnded is the gap that is left where function tracing ended by a warning: what the kernel knows of it leads to
// memory that was freed.
func tracingEnded(what string) error {
	return fmt.Errorf("function tracing ended for good by a warning (ftrace_disabled), and %s: reboot the guest", what)
}

// neverWarned reports whether a log has all messages since boot, and none of a warning (WARN).
func neverWarned(messages iter.Seq2[*linux.LogMessage, error]) (bool, error) {
	whole, n := false, 0
	for m, err := range messages {
		if err != nil {
			return false, err
		}
		if n++; n == 1 {
			whole = m.Seq == 0
		}
		if !whole || strings.HasPrefix(m.Text, "WARNING: ") || strings.Contains(m.Text, "ftrace bug") {
			return false, nil
		}
	}
	return whole, nil
}

func newFtraceUser(f *hooks.FtraceOp) *ftraceUser {
	u := &ftraceUser{FtraceOp: f, all: f.FilterSize == 0, excluded: make(map[virt.Addr]bool, len(f.NoTrace))}
	for _, ip := range f.NoTrace {
		u.excluded[ip] = true
	}
	return u
}

// replaces judges a user that may replace functions: live patching and kprobes are of the
// kernel itself, and so is what attaches BPF.
func (v *ftraceView) replaces(u *ftraceUser) *Finding {
	owner := v.owners.CodeAt(u.Func)
	if !slices.Contains(u.Flags, "ipmodify") || owner.Kind != linux.OwnerModule {
		return nil
	}
	return &Finding{
		Confidence: Likely,
		Title:      fmt.Sprintf("module %s replaces %s by function tracing", owner.Name, v.names(u)),
		Object:     Object{Kind: "ftrace_ops", Name: owner.String(), Addr: u.Addr},
		Expected:   "only the kernel's own live patching and probes replace functions (IPMODIFY)",
		Seen:       fmt.Sprintf("%s (%#x)", owner.Function(), uint64(u.Func)),
		Evidence:   []Evidence{{Text: "its struct ftrace_ops", Addr: u.Addr}, {Text: "its function", Addr: u.Func, Bytes: codeAt(v.s, uint64(u.Func))}},
		Basis:      "the guest's list of users of function tracing, and its list of modules",
		Show:       "outsight ftrace {}",
	}
}

// names are the functions that a user traces, the first of them.
func (v *ftraceView) names(u *ftraceUser) string {
	const shown = 8
	if u.all {
		return "functions of the whole kernel"
	}
	var names []string
	for _, ip := range u.Filter[:min(len(u.Filter), shown)] {
		names = append(names, v.owners.CodeAt(ip).Symbol)
	}
	if more := len(u.Filter) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// nops are the five bytes of a function that is not traced: since 5.13 the first on every
// processor, before one of both.
var nops = [][]byte{{0x0f, 0x1f, 0x44, 0x00, 0x00}, {0x66, 0x66, 0x66, 0x66, 0x90}}

const callSize = 5 // call rel32 of x86

// judge judges one function by what its record, the users and its code say.
func (v *ftraceView) judge(site *hooks.FtraceSite) *Finding {
	var code [callSize]byte
	if !v.code.read(code[:], site.Site) {
		return nil // of a module that is just being unloaded, or text that was freed after booting
	}
	users := v.users(site.Site)
	found := func(what, expected, seen string) *Finding {
		name := v.owners.CodeAt(site.Site).Symbol // the place may lie behind an endbr64
		if name == "" {
			name = fmt.Sprintf("the function at %#x", uint64(site.Site))
		}
		return &Finding{
			Confidence: Certain,
			Title:      name + " " + what,
			Object:     Object{Kind: "function", Name: name, Addr: site.Site},
			Expected:   expected,
			Seen:       seen,
			Evidence:   []Evidence{{Text: "its place for tracing", Addr: site.Site, Bytes: slices.Clone(code[:])}, {Text: "its struct dyn_ftrace", Addr: site.Record}},
			Basis:      "users, records and code of the guest's function tracing, compared with each other at one look",
			Show:       fmt.Sprintf("outsight disassemble {} %#x", uint64(site.Site)),
		}
	}
	idle := slices.ContainsFunc(nops, func(nop []byte) bool { return bytes.Equal(nop, code[:]) })
	if slices.Contains(site.Flags, "disabled") {
		// A weak function that another replaced keeps its call of __fentry__, and one of a module
		// that is just being loaded is not traced yet: neither calls a module.
		if to, owner := v.target(site.Site, code); owner.Kind == linux.OwnerModule {
			return found("calls a module when it is entered, and its record says that it cannot be traced", "a nop of five bytes, or a call of __fentry__", to)
		}
		return nil
	}
	if v.broken {
		// Records of modules that were removed lead into those that came since.
		to, owner := v.target(site.Site, code)
		if v.owners.CodeAt(site.Site).Kind != linux.OwnerKernel || owner.Kind != linux.OwnerModule {
			return nil
		}
		return found("calls a module when it is entered, and tracing is switched off", "a nop of five bytes, or a call of a function of tracing", to)
	}
	switch {
	case !site.Enabled && !idle:
		to, owner := v.target(site.Site, code)
		if owner.Kind == linux.OwnerProgram && strings.HasPrefix(v.owners.CodeAt(site.Site).Symbol, "bpf_dispatcher_") {
			return nil // BPF changes its own dispatchers by itself (up to 6.1)
		}
		return found("holds code in its place for tracing, and is not traced", "a nop of five bytes", to)
	case site.Enabled && idle:
		return found("is recorded as traced, and is not", "a call", "a nop of five bytes")
	case site.Enabled:
		if to, owner := v.target(site.Site, code); !legalTarget(site, owner) {
			return found("calls something else than a function of tracing when it is entered", "a call of ftrace_caller or ftrace_regs_caller, of a trampoline, or of a BPF program that is attached directly", to)
		}
	}
	switch {
	case site.Users > users:
		return found(fmt.Sprintf("is traced for %d users, of which %d are on the list", site.Users, users), "every user is on ftrace_ops_list", fmt.Sprintf("%d of %d users", users, site.Users))
	case site.Users < users && !v.off:
		return found(fmt.Sprintf("is traced by %d users on the list, and its record counts %d", users, site.Users), fmt.Sprintf("%d users", users), fmt.Sprintf("%d users", site.Users))
	}
	return nil
}

// target is where the call or jump at a site leads.
func (v *ftraceView) target(site virt.Addr, code [callSize]byte) (string, linux.Owner) {
	const call, jump = 0xe8, 0xe9
	if code[0] != call && code[0] != jump {
		return fmt.Sprintf("% x", code[:]), linux.Owner{Kind: linux.OwnerNone}
	}
	to := site + callSize + virt.Addr(int64(int32(binary.LittleEndian.Uint32(code[1:]))))
	owner := v.owners.CodeAt(to)
	word := map[byte]string{call: "a call of", jump: "a jump to"}[code[0]]
	return fmt.Sprintf("%s %#x (%s %s)", word, uint64(to), owner, owner.Function()), owner
}

// tracingCode is what of the kernel's own code is called from the place for tracing.
var tracingCode = []string{"ftrace_caller", "ftrace_regs_caller", "ftrace_graph_caller"}

// legalTarget reports whether tracing calls such code.
func legalTarget(site *hooks.FtraceSite, owner linux.Owner) bool {
	switch owner.Kind {
	case linux.OwnerKernel:
		return owner.Offset == 0 && slices.Contains(tracingCode, owner.Symbol)
	case linux.OwnerTrampoline:
		return owner.Name == "ftrace" && owner.Offset == 0
	case linux.OwnerProgram:
		return slices.Contains(site.Flags, "direct_enabled")
	}
	return false
}

// codeWindow reads code piece by piece, for many short reads that follow each other.
type codeWindow struct {
	s     *Subject
	start virt.Addr
	bytes []byte
	buf   [64 << 10]byte // as much as is read at once
}

func (w *codeWindow) read(p []byte, a virt.Addr) bool {
	if len(w.bytes) < len(p) || uint64(a-w.start) > uint64(len(w.bytes)-len(p)) { // a below start wraps
		w.start, w.bytes = a, w.buf[:]
		if w.s.Linux.ReadAt(w.bytes, a) != nil {
			w.bytes = w.buf[:len(p)]
			if w.s.Linux.ReadAt(w.bytes, a) != nil {
				w.bytes = nil
				return false
			}
		}
	}
	copy(p, w.bytes[a-w.start:])
	return true
}
