package told

import (
	"time"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/trace/tcg"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	// maxOpen bounds the readings that are not complete, and maxRequests the requests of netlink that were not
	// answered. Guests open more files than that, but hardly read them at once.
	maxOpen     = 4096
	maxRequests = 4096
	// maxKept bounds the readings that are kept, and maxSame those of one thing by one program: what it was told
	// again and again is the same.
	maxKept = 1 << 14
	maxSame = 4
	// maxEntries bounds the entries of one reading, and maxTotal those of all that are kept.
	maxEntries = 1 << 17
	maxTotal   = 4 << 20
)

// Assembler puts answers together to readings. It is for one user.
type Assembler struct {
	open     map[fileKey]*open
	requests map[requestKey]*request
	kept     map[readingKey][]*Reading
	n        int // readings in kept, and their entries
	entries  int
	dropped  uint64
}

// NewAssembler has heard nothing yet.
func NewAssembler() *Assembler {
	return &Assembler{open: map[fileKey]*open{}, requests: map[requestKey]*request{}, kept: map[readingKey][]*Reading{}}
}

// fileKey names an open file: its structure is given again soon.
type fileKey struct{ file, inode, dentry virt.Addr }

// readingKey is what several readings have in common: what they are of, and who reads.
type readingKey struct {
	kind           Kind
	dentry, net    virt.Addr
	what, exe, com string
	after, next    uint32
}

// open is a reading that has begun.
type open struct {
	*Reading
	next  int64 // the position at which it goes on
	lines lines
}

// Add takes an answer in.
func (a *Assembler) Add(ans *tcg.Answer) {
	switch {
	case ans.Call == "bpf":
		a.bpf(ans)
	case ans.File.Magic == magicSocket:
		a.netlink(ans)
	case ans.Call == "getdents64" || ans.Call == "getdents":
		a.directory(ans)
	default:
		a.text(ans)
	}
}

// Readings are those that are complete.
func (a *Assembler) Readings() (all []*Reading) {
	for _, rs := range a.kept {
		all = append(all, rs...)
	}
	return all
}

// keep keeps a reading that is complete. Of many that are the same the first are dropped.
func (a *Assembler) keep(r *Reading) {
	k := readingKey{kind: r.Kind, net: r.File.Net, what: r.What, exe: r.Reader.Exe, com: r.Reader.Comm, after: r.After, next: r.Next}
	if r.Kind == Directory {
		k.dentry = r.File.Dentry
	}
	same := a.kept[k]
	size := len(r.Names) + len(r.Inodes)
	if len(same) == maxSame {
		a.n--
		a.entries -= len(same[0].Names) + len(same[0].Inodes)
		same = append(same[:0], same[1:]...)
	}
	if a.n >= maxKept || a.entries+size > maxTotal {
		a.dropped++
		a.kept[k] = same
		return
	}
	a.n++
	a.entries += size
	a.kept[k] = append(same, r)
}

// begin begins a reading of a file, in place of one that was begun before.
func (a *Assembler) begin(ans *tcg.Answer, kind Kind, what string) *open {
	k := fileKey{ans.File.Addr, ans.File.Inode, ans.File.Dentry}
	if _, again := a.open[k]; !again && len(a.open) >= maxOpen {
		for old := range a.open { // any of them
			delete(a.open, old)
			break
		}
		a.dropped++
	}
	o := &open{Reading: newReading(ans, kind, what)}
	a.open[k] = o
	return o
}

func newReading(ans *tcg.Answer, kind Kind, what string) *Reading {
	began := ans.Began
	if began.IsZero() {
		began = ans.Ended.Add(-time.Millisecond)
	}
	return &Reading{Kind: kind, Reader: ans.Process, Call: callOf(ans), What: what, Began: began, Ended: ans.Ended, File: ans.File, Altered: ans.Altered}
}

// callOf names the call, or the operation of io_uring.
func callOf(ans *tcg.Answer) string {
	if ans.Ring {
		return "io_uring:" + ans.Call
	}
	return ans.Call
}

// abandon forgets a reading that nothing can complete.
func (a *Assembler) abandon(f *tcg.File) { delete(a.open, fileKey{f.Addr, f.Inode, f.Dentry}) }

// done keeps a reading that has come to its end.
func (a *Assembler) done(o *open, ended time.Time) {
	a.abandon(&o.File)
	o.Ended = ended
	a.keep(o.Reading)
}

// whole says that all which a call returned is there.
func whole(ans *tcg.Answer) bool {
	return ans.Result >= 0 && ans.Result <= int64(len(ans.Data)) && (ans.Status == syscall.Whole || ans.Result < int64(len(ans.Data)))
}

// add adds an entry. It is false if there are too many.
func (r *Reading) name(n string) bool {
	if r.Names == nil {
		r.Names = map[string]bool{}
	}
	r.Names[n] = true
	return len(r.Names) <= maxEntries
}

func (r *Reading) inode(n uint64) bool {
	if r.Inodes == nil {
		r.Inodes = map[uint64]bool{}
	}
	r.Inodes[n] = true
	return len(r.Inodes) <= maxEntries
}

// directory takes in what a listing of a directory returned.
func (a *Assembler) directory(ans *tcg.Answer) {
	what, wanted := directoryOf(&ans.File)
	if !wanted || ans.Result < 0 {
		return
	}
	// Who shares a file with another thread may have waited for it, and its position was another then.
	if !ans.Seen || ans.Asked != ans.File.Addr || !whole(ans) && ans.Result > 0 {
		a.abandon(&ans.File)
		return
	}
	o := a.open[fileKey{ans.File.Addr, ans.File.Inode, ans.File.Dentry}]
	// Two calls on one file wait for each other: the one that began meanwhile did not read from where the file was then.
	if o != nil && ans.Began.Before(o.Ended) {
		a.abandon(&ans.File)
		return
	}
	if ans.Before == 0 {
		o = a.begin(ans, Directory, what)
	}
	if o == nil || ans.Before != o.next || !process(o.Reader, ans.Process) {
		a.abandon(&ans.File)
		return
	}
	if ans.Result == 0 {
		// Every file system lists the directory itself: what lacks it was read from elsewhere. It is not always the first:
		// ext4 orders directories by a hash of the names, and that of "." is one like the others in those of one block.
		if o.Names["."] {
			a.done(o, ans.Ended)
		} else {
			a.abandon(&ans.File)
		}
		return
	}
	if !entries(ans.Data[:ans.Result], nameAt(ans.Call, ans.ABI), o.name) {
		a.abandon(&ans.File)
		a.dropped++
		return
	}
	o.Ended = ans.Ended
	o.Calls++
	o.Altered = o.Altered || ans.Altered
	o.next = ans.File.Position
}

// text takes in what a read of a file in /proc returned.
func (a *Assembler) text(ans *tcg.Answer) {
	kind, table, read := fileOf(&ans.File)
	if kind == 0 || ans.Result < 0 {
		return
	}
	var from int64
	switch ans.Call {
	case "read", "readv":
		from = ans.File.Position - ans.Result
	case "pread64", "preadv":
		from = offset(ans)
	case "preadv2":
		if from = offset(ans); from == -1 {
			from = ans.File.Position - ans.Result
		}
	}
	if !ans.Seen || ans.Asked != ans.File.Addr || !whole(ans) && ans.Result > 0 || ans.Result == 0 && !room(ans) {
		a.abandon(&ans.File)
		return
	}
	o := a.open[fileKey{ans.File.Addr, ans.File.Inode, ans.File.Dentry}]
	if from == 0 && (ans.Result > 0 || o == nil || o.next > 0) {
		what := "/proc/" + ans.File.Names[0]
		if table != "" || kind == Interfaces {
			what = "/proc/net/" + ans.File.Names[0]
		}
		o = a.begin(ans, kind, what)
		o.Table, o.States = table, ^uint32(0)
	}
	switch {
	case o == nil || from != o.next:
		a.abandon(&ans.File)
		return
	case ans.Result == 0:
		if o.lines.end(func(line string) bool { return read(o.Reading, line) }) {
			a.done(o, ans.Ended)
		}
		return
	}
	if !o.lines.add(ans.Data[:ans.Result], func(line string) bool { return read(o.Reading, line) }) {
		a.abandon(&ans.File)
		a.dropped++
		return
	}
	o.Calls++
	o.Altered = o.Altered || ans.Altered
	o.next = from + ans.Result
}

// room says that a call that read nothing could have: then it has come to the end of the file.
func room(ans *tcg.Answer) bool {
	if ans.Call == "read" || ans.Call == "pread64" {
		return ans.Args[2] > 0
	}
	return len(ans.Data) > 0
}

// offset is where a call reads that says so itself; of 32-bit programs, in two words.
func offset(ans *tcg.Answer) int64 {
	if ans.ABI == syscall.ABI32 {
		return int64(ans.Args[3]&0xffffffff | ans.Args[4]<<32)
	}
	return int64(ans.Args[3])
}

// bpf takes in what bpf(2) said of identifiers. Each call is complete in itself.
func (a *Assembler) bpf(ans *tcg.Answer) {
	objects, only := bpfCommand(uint32(ans.Args[0]))
	if !ans.Seen || objects == "" || len(ans.Data) < 8 || ans.Status == syscall.Unreadable {
		return
	}
	r := newReading(ans, BPF, "")
	r.Calls, r.Objects, r.Only = 1, objects, only
	r.After, r.Next = le.Uint32(ans.Data), le.Uint32(ans.Data[4:])
	const enoent = -2
	switch {
	case only && ans.Result == enoent:
		r.After, r.Next = 0, r.After // the identifier that was asked for
	case only || ans.Result != 0 && ans.Result != enoent:
		return
	case ans.Result == enoent:
		r.Next = 0
	}
	r.What = bpfCommands[uint32(ans.Args[0])]
	a.keep(r)
}

// process tells whether two answers were given to one process.
func process(a, b *trace.Process) bool { return a == b || a.PID == b.PID && a.Started == b.Started }
