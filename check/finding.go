package check

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// Finding is one thing that is not as it must be.
type Finding struct {
	Check      *Check
	Severity   Severity
	Confidence Confidence
	// Title is one sentence without a full stop: what was found, and on what.
	Title  string
	Object Object
	// Aspect distinguishes findings of one check about one object; empty: Expected does.
	Aspect string
	// Expected and Seen are what should be there and what is.
	Expected, Seen string
	Evidence       []Evidence
	// Basis is what the finding rests on: what was compared with what, and whose word that is.
	Basis string
	// Reference is what the kernel was compared with in the same run, and what that proves:
	// the text of [Result.Assurances].
	Reference string
	// Show is the command that shows it by hand; {} stands for the TARGET.
	Show string
	// Target is what TARGET stands for in Next, as a shell reads it; empty: it is not known.
	Target string
	// At is when it was found, by the host's clock.
	At time.Time

	// Busy says that the kernel was just changing what the finding is about, or says so: it is
	// looked at for longer before it counts.
	Busy bool
	// Explained says of one that is Busy that the task which changes it is known, or what has to end before it changes: it counts
	// only if it is the same at all looks.
	Explained bool
	// work is what the task that changes it had done by then. While that goes on it is not the same at two looks: what stays
	// so for as long as the task is at work is a gap.
	work string

	// Of which process or module, and where, in memory or by its path, that is which Next says to take out or to look at; 0 or empty: it is not
	// known.
	nextPID    int32
	nextAddr   virt.Addr
	nextModule string
	nextPath   string

	again int // how often it was found again
}

// state is what was seen, and how far who changes it had come.
func (f *Finding) state() string { return f.Seen + f.work }

// Next is what to do about it: [Check.Next] on one line, with what is known of its commands filled in.
func (f *Finding) Next() string {
	text := oneLine(f.Check.Next)
	fill := func(where, word, with string) {
		text = strings.ReplaceAll(text, where, strings.Replace(where, word, with, 1))
	}
	if pid := cmp.Or(f.nextPID, f.Object.PID); pid != 0 {
		fill("--pid PID", "PID", strconv.Itoa(int(pid)))
		fill("/proc/PID\"", "PID", strconv.Itoa(int(pid)))
	}
	if f.nextAddr != 0 {
		for _, before := range []string{"--address", "--pointer", "TARGET", "TARGET task_struct"} {
			fill(before+" ADDRESS", "ADDRESS", fmt.Sprintf("%#x", uint64(f.nextAddr)))
		}
	}
	if f.nextModule == "" && f.Object.Kind == "module" {
		f.nextModule = f.Object.Name
	}
	if f.nextModule != "" {
		fill("--module MODULE", "MODULE", shellQuoted(f.nextModule))
	}
	if f.nextPath != "" {
		fill("recover TARGET PATH", "PATH", shellQuoted(f.nextPath))
	}
	if f.Object.PID == 0 && f.Object.Addr != 0 {
		for _, structure := range []string{"inode", "sock"} {
			fill("TARGET "+structure+" ADDRESS", "ADDRESS", fmt.Sprintf("%#x", uint64(f.Object.Addr)))
		}
	}
	if f.Target != "" {
		text = strings.ReplaceAll(text, "TARGET", f.Target)
	}
	return text
}

// shellQuoted is a word of the guest's as a shell reads it.
func shellQuoted(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// heldBy takes in who changes what the finding is about.
func (f *Finding) heldBy(work []linux.Work) {
	for _, w := range work {
		f.work += fmt.Sprint(w)
		f.Evidence = append(f.Evidence, Evidence{Text: "the task that holds " + w.Mutex, Addr: w.Task})
	}
}

// Object is what a finding is about.
type Object struct {
	Kind string // process, module, function pointer, …
	Name string
	PID  int32     // 0: it is not a process
	Addr virt.Addr // 0: it has none
}

func (o Object) String() string {
	var b strings.Builder
	b.WriteString(o.Kind)
	if o.PID != 0 {
		b.WriteString(" " + strconv.Itoa(int(o.PID)))
	}
	if o.Name != "" {
		b.WriteString(" " + o.Name)
	}
	if o.Addr != 0 && o.PID == 0 && o.Name == "" {
		b.WriteString(" at " + o.Addr.String())
	}
	return b.String()
}

// Evidence is one fact that a finding rests on.
type Evidence struct {
	Text  string    // what it is
	Addr  virt.Addr // where it is in the guest; 0: nowhere
	Bytes []byte    // what is there; nil: nothing that was compared
}

func (e Evidence) String() string {
	s := e.Text
	if e.Addr != 0 {
		s += " at " + e.Addr.String()
	}
	if e.Bytes != nil {
		s += fmt.Sprintf(": % x", e.Bytes)
	}
	return s
}

// Key names what was found, the same for as long as it is there: two looks at it agree in
// the key. Nothing is in it that the object says of itself and can change: a process its name.
func (f *Finding) Key() string {
	name := f.Object.Name
	if f.Object.PID != 0 {
		name = ""
	}
	text := strings.Join([]string{f.Check.ID, f.Object.Kind, name, strconv.Itoa(int(f.Object.PID)), f.Object.Addr.String(), cmp.Or(f.Aspect, f.Expected)}, "\x00")
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// sortFindings sorts, the worst first.
func sortFindings(fs []*Finding) {
	rank := func(f *Finding) int { return slices.Index(Severities, f.Severity) }
	slices.SortStableFunc(fs, func(a, b *Finding) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Check.ID, b.Check.ID),
			cmp.Compare(a.Object.PID, b.Object.PID), strings.Compare(a.Object.Name, b.Object.Name), cmp.Compare(a.Object.Addr, b.Object.Addr))
	})
}
