package breakpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/gdb"
)

// place is a function at whose beginning something happens.
type place struct {
	kind     trace.Kind
	function string
	read     func(*hit)
}

// places are, for each kind, the functions of which a kernel has one: the first that it has is taken. All
// of the first ones are in Debian's 5.10, 6.1, 6.12 and 7.2.
var places = map[trace.Kind][][]place{
	trace.KindExec: {{
		// Called when the new program is complete but for its registers, and nothing can fail any more.
		{trace.KindExec, "finalize_exec", (*hit).exec},
		{trace.KindExec, "proc_exec_connector", (*hit).execTask},
	}},
	trace.KindExit: {{
		// Called by each thread that ends, with whether it is its process's last.
		{trace.KindExit, "acct_collect", (*hit).exit},
		{trace.KindExit, "do_exit", (*hit).exitThread},
	}},
	trace.KindFork:   {{{trace.KindFork, "wake_up_new_task", (*hit).fork}}},
	trace.KindModule: {{{trace.KindModule, "do_init_module", (*hit).module}}},
	trace.KindUnload: {{{trace.KindUnload, "free_module", (*hit).module}}},
	trace.KindCreds:  {{{trace.KindCreds, "commit_creds", (*hit).creds}}},
	trace.KindConnect: {{
		{trace.KindConnect, "security_socket_connect", (*hit).connect},
		{trace.KindConnect, "__sys_connect_file", (*hit).connectFile},
	}},
	trace.KindListen: {{{trace.KindListen, "security_socket_listen", (*hit).listen}}},
	trace.KindAccept: {{
		// Called for each socket that accept() gives, when its connection is known.
		{trace.KindAccept, "security_sock_graft", (*hit).accept},
		{trace.KindAccept, "__inet_accept", (*hit).acceptInet}, // 6.1
	}},
	trace.KindMount: {
		{{trace.KindMount, "path_mount", (*hit).mount}},              // mount()
		{{trace.KindMount, "security_move_mount", (*hit).moveMount}}, // move_mount(), of fsmount()
	},
	trace.KindUnmount: {{{trace.KindUnmount, "path_umount", (*hit).unmount}}},
}

// Kinds are the kinds that can be asked for.
func Kinds() []trace.Kind {
	all := make([]trace.Kind, 0, len(places))
	for k := range places {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// point is a place in this boot of this kernel, or a watch.
type point struct {
	place
	addr  virt.Addr // where the breakpoint is
	nop   int       // how many bytes without effect are there; 0: none
	code  [nopSize]byte
	watch *Watch
}

func (p *point) String() string {
	if p.watch != nil {
		return fmt.Sprintf("watchpoint at %#x", uint64(p.addr))
	}
	return fmt.Sprintf("%s (%s)", p.kind, p.function)
}

// nopSize is the size of the instruction that function tracing replaces.
const nopSize = 5

// What functions begin with.
var (
	// landings are marks for indirect calls (IBT), and what they become where there are none.
	landings = [][]byte{
		{0xf3, 0x0f, 0x1e, 0xfa}, // endbr64
		{0x66, 0x0f, 0x1f, 0x00}, // sealed, 5.18
		{0x0f, 0x1f, 0x40, 0xd6}, // sealed, 6.16
	}
	// nops are where calls of function tracing can come.
	nops = [][]byte{
		{0x0f, 0x1f, 0x44, 0x00, 0x00},
		{0x66, 0x66, 0x66, 0x66, 0x90}, // of old AMD processors, until 5.12
		{0x3e, 0x8d, 0x74, 0x26, 0x00},
	}
)

func isNop(code []byte) bool {
	return slices.ContainsFunc(nops, func(n []byte) bool { return bytes.Equal(n, code) })
}

// entry finds where in a function that begins with code a breakpoint is best: behind the landing pad, which
// no indirect call may miss, and at the room for function tracing, which has no effect.
func entry(code []byte) (offset, nop int) {
	for _, l := range landings {
		if bytes.HasPrefix(code, l) {
			offset = len(l)
		}
	}
	if len(code) >= offset+nopSize && isNop(code[offset:offset+nopSize]) {
		nop = nopSize
	}
	return offset, nop
}

// resolve finds the places in the guest as it is now.
func (s *stream) resolve(ctx context.Context) ([]*point, error) {
	l, err := s.g.Look(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if s.layout, err = layoutOf(l.Linux); err != nil {
		return nil, err
	}
	s.boot = l.Boot
	var points []*point
	for _, k := range s.opts.Kinds {
		found, err := find(l, k)
		if err != nil {
			return nil, err
		}
		points = append(points, found...)
	}
	for i := range s.opts.Watches {
		w := &s.opts.Watches[i]
		if !slices.Contains([]int{1, 2, 4, 8}, w.Size) || uint64(w.Addr)%uint64(w.Size) != 0 {
			return nil, fmt.Errorf("watch %#x: %d bytes: give 1, 2, 4 or 8, aligned", uint64(w.Addr), w.Size)
		}
		points = append(points, &point{place: place{kind: trace.KindWrite, read: (*hit).written}, addr: w.Addr, watch: w})
	}
	return points, nil
}

func find(l *guest.Look, k trace.Kind) (points []*point, err error) {
	ways, ok := places[k]
	if !ok {
		return nil, &vm.Error{Kind: vm.ErrUnsupported, What: fmt.Sprintf("trace %s by breakpoints", k), Why: "there is no place for it", Do: fmt.Sprintf("choose from %v", Kinds())}
	}
	for _, way := range ways {
		i := slices.IndexFunc(way, func(p place) bool { _, ok := l.Linux.Address(p.function); return ok })
		if i < 0 {
			continue
		}
		p, err := pointAt(l.Linux, way[i])
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	if points == nil {
		var names []string
		for _, way := range ways {
			for _, p := range way {
				names = append(names, p.function)
			}
		}
		return nil, fmt.Errorf("trace %s by breakpoints: this kernel has none of the functions %s", k, strings.Join(names, ", "))
	}
	return points, nil
}

func pointAt(l *linux.System, at place) (*point, error) {
	a, _ := l.Address(at.function)
	var code [16]byte
	if err := l.ReadAt(code[:], a); err != nil {
		return nil, fmt.Errorf("function %s at %#x: %w", at.function, uint64(a), err)
	}
	offset, nop := entry(code[:])
	p := &point{place: at, addr: a + virt.Addr(offset), nop: nop}
	copy(p.code[:], code[offset:])
	return p, nil
}

// set sets all points. The machine stands still.
func (s *stream) set(ctx context.Context, points []*point) error {
	s.points = s.points[:0]
	for i, p := range points {
		err := s.insert(ctx, p)
		if errors.Is(err, gdb.ErrRefused) {
			var left []string
			for _, p := range points[i:] {
				left = append(left, p.String())
			}
			return &vm.Error{Kind: vm.ErrUnsupported, What: s.what(), Why: fmt.Sprintf("there are %d slots for breakpoints, and no room for %s", len(s.points), strings.Join(left, ", ")), Do: "ask for fewer kinds", Err: err}
		}
		if err != nil {
			return err
		}
		s.points = append(s.points, p)
	}
	return nil
}

func (s *stream) insert(ctx context.Context, p *point) error {
	if p.watch != nil {
		return s.conn.Watch(ctx, p.access(), uint64(p.addr), p.watch.Size)
	}
	return s.conn.Insert(ctx, gdb.Hardware, uint64(p.addr))
}

func (s *stream) remove(ctx context.Context, p *point) error {
	if p.watch != nil {
		return s.conn.Unwatch(ctx, p.access(), uint64(p.addr), p.watch.Size)
	}
	return s.conn.Remove(ctx, gdb.Hardware, uint64(p.addr))
}

func (p *point) access() gdb.Access {
	if p.watch.Read {
		return gdb.ReadWrite
	}
	return gdb.Write
}
