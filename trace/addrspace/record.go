package addrspace

import (
	"time"

	"github.com/outsight-vmi/outsight/trace/plugin"
)

// ID marks the records of the probes that [Probes] writes.
const ID = 0xf000

// Kinds of records: their first word.
const (
	recLoad  = 1 + iota // another root was loaded
	recPair             // … which is the second root of the same address space
	recMoved            // the last entry of the loaded root changed
	recGone             // the last entry of a root that was left changed
	recSleep            // a vCPU has nothing to do, or goes on
	recOwner            // the task that runs in the loaded root
)

// entry is the last entry that is used of the user's half of a root. An address space has its tables for itself, and keeps the last one, which has its stack, as long as it lives. So the
// entry says whether two roots belong to one space, and whether a root still belongs to the space that it belonged to.
type entry struct {
	n     int    // its number, from 1; 0: the half is empty
	frame uint64 // the table that it leads to
}

func (e entry) empty() bool { return e.n == 0 }

// record is what a probe fetched.
type record struct {
	kind int
	vcpu int
	at   time.Time

	root uint64 // that is loaded; of recGone: that was left
	top  entry  // of it
	// of recLoad
	old     uint64 // the root that was loaded before; 0: unknown
	oldTop  entry
	gone    uint64 // a root that was left earlier, whose last entry has changed since; 0: none
	was     entry  // of it, and of recGone
	partner uint64
	wakes   bool
	owner   Owner
	fault   bool
}

// decode reads a record of the plugin's. It reports whether it is one of these.
func decode(r *plugin.Record, at time.Time, to *record) bool {
	if r.Probe != ID {
		return false
	}
	*to = record{kind: int(r.Word(0)), vcpu: r.VCPU, at: at, fault: r.Flags&(plugin.Fault|plugin.Truncated) != 0}
	switch to.kind {
	case recLoad:
		to.root, to.top = r.Word(1), entryOf(r.Word(2), r.Word(3))
		to.old, to.oldTop = r.Word(4), entryOf(r.Word(5), r.Word(6))
		to.gone, to.was = rootOf(r.Word(7)), entryOf(r.Word(7), r.Word(8))
	case recPair:
		to.root, to.partner = r.Word(1), r.Word(2)
	case recMoved:
		to.root, to.top = r.Word(1), entryOf(r.Word(2), r.Word(3))
	case recGone:
		to.was, to.top = entryOf(r.Word(1), r.Word(2)), entryOf(r.Word(3), r.Word(4))
		to.root = rootOf(r.Word(1))
	case recSleep:
		to.wakes = r.Word(1) != 0
	case recOwner:
		to.root = r.Word(1)
		ids := r.Word(3)
		to.owner = Owner{Task: r.Word(2), PID: int32(ids >> 32), TID: int32(ids), Started: r.Word(4), UID: uint32(r.Word(5)), PPID: int32(r.Word(6))}
		items := r.Items()
		if name, ok := items.Next(); ok {
			to.owner.Comm = commOf(name.Data)
		}
	default:
		return false
	}
	return true
}

// entryOf is an entry as programs put it: by its address in [physBase].
func entryOf(at, frame uint64) entry {
	if at == 0 {
		return entry{}
	}
	return entry{int(at&(pageSize-1))/8 + 1, frame}
}

func rootOf(at uint64) uint64 { return at & rootMask }

func commOf(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
