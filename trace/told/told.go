// Package told puts together what a guest's own programs are told of it: the directories that they list, the tables of
// /proc that they read, the dumps of netlink sockets and what bpf(2) says. It sees the answers of the kernel, as the system
// call trace does, and keeps those that are complete: only these can leave something out.
package told

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/addrspace"
	"github.com/outsight-vmi/outsight/trace/tcg"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

// Kind is what a reading is about.
type Kind uint8

// The kinds.
const (
	Directory  Kind = iota + 1 // Names are those of its entries
	Modules                    // /proc/modules: Names are those of modules
	Sockets                    // a table of /proc/net, or a dump of sock_diag: Inodes are those of sockets
	Interfaces                 // /proc/net/dev, or a dump of rtnetlink: Names are those of interfaces
	BPF                        // bpf(2): no identifier lies between After and Next
)

// Reading is a complete answer that a program got.
type Reading struct {
	Kind   Kind
	Reader *trace.Process // that was told; it never changes
	Call   string         // the system call
	What   string         // what was read: a path in its file system, or the request
	Began  time.Time      // before its first call, by the host's clock
	Ended  time.Time      // after its last
	// Altered says that a part was changed after the kernel's function had returned it, on the way to the program.
	Altered bool
	// Calls is how many calls brought a part of it. Between them the kernel may have lost its place, where it
	// counts entries.
	Calls int

	File   tcg.File // that was read; Addr is 0 for bpf(2)
	Names  map[string]bool
	Inodes map[uint64]bool
	// Table names the table of a reading of sockets, as /proc/net does: "tcp6", "unix". States are those that were
	// asked for, as a set of bits.
	Table  string
	States uint32
	// Objects are those of a reading of bpf(2): "prog", "map", "link" or "btf". Next is 0 if there are no more. Only
	// says that the program asked for identifier Next itself, and was told that there is none.
	Objects     string
	After, Next uint32
	Only        bool
}

// String names what was read by whom.
func (r *Reading) String() string {
	exe := r.Reader.Exe
	if exe == "" {
		exe = r.Reader.Comm
	}
	return fmt.Sprintf("%s of %s by process %d (%s, %s)", r.Call, r.What, r.Reader.PID, r.Reader.Comm, exe)
}

// FromSocket says that the answer came by a netlink socket.
func (r *Reading) FromSocket() bool { return r.File.Magic == magicSocket }

// Net is the network namespace that the reading is of; 0: it is of none.
func (r *Reading) Net() virt.Addr { return r.File.Net }

// Listener collects what programs are told while it listens.
type Listener struct {
	stream *tcg.Stream
	cancel context.CancelFunc
	done   sync.WaitGroup
	a      *Assembler
	err    error
}

// Available says whether a machine's programs can be listened to: nil, or why not and what to do.
func Available(g *guest.Guest) error {
	err := tcg.Available(g.Machine())
	var refused *vm.Error
	if errors.As(err, &refused) {
		mine := *refused
		mine.What = "listen to the programs of " + g.Machine().Title()
		return &mine
	}
	return err
}

// Listen begins to listen to the programs of g. spaces, unless it is nil, watches address spaces meanwhile.
func Listen(ctx context.Context, g *guest.Guest, spaces *addrspace.Watch) (*Listener, error) {
	ctx, cancel := context.WithCancel(ctx)
	s, err := tcg.Start(ctx, g, tcg.Options{Answers: true, Spaces: spaces, Limit: 64 << 10})
	if err != nil {
		cancel()
		return nil, err
	}
	l := &Listener{stream: s, cancel: cancel, a: NewAssembler()}
	l.done.Go(func() {
		var a tcg.Answer
		for l.err == nil {
			if l.err = s.NextAnswer(ctx, &a); l.err == nil {
				l.a.Add(&a)
			}
		}
	})
	return l, nil
}

// Heard is what a [Listener] heard.
type Heard struct {
	Readings []*Reading
	Lost     uint64 // system calls for which there was no room: a reading that lacks one is not complete
	Dropped  uint64 // readings that were not kept, for there were too many or they were too long
}

// Stop ends listening, and returns what was heard.
func (l *Listener) Stop() (*Heard, error) {
	l.cancel()
	l.done.Wait()
	h := &Heard{Readings: l.a.Readings(), Lost: l.stream.Lost(), Dropped: l.a.dropped}
	err := l.stream.Close()
	if l.err != nil && !errors.Is(l.err, context.Canceled) {
		err = errors.Join(l.err, err)
	}
	return h, err
}

// path joins what is known of a file's path, from the names of its last components.
func path(mount string, names [3]string) string {
	var parts []string
	for _, n := range names {
		if n == "/" || n == "" {
			break
		}
		parts = append([]string{n}, parts...)
	}
	if len(parts) == 3 {
		return mount + ".../" + strings.Join(parts, "/")
	}
	return mount + strings.Join(parts, "/")
}
