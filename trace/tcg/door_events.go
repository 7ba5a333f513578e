package tcg

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/virt"
)

// doorRecord is a record of a door.
type doorRecord struct {
	ctx context.Context
	*call
	user       uint32
	comm, text string // of the task; the door's first string
	drop       bool   // it is no event
}

// word is one of the door's own.
func (r *doorRecord) word(i int) uint64 {
	if i += doorWords; i < len(r.words) {
		return r.words[i]
	}
	return 0
}

// item is the first of a tag, as text.
func (r *doorRecord) item(tag uint8) string {
	for _, p := range r.data {
		if p.tag == tag {
			return string(r.bytes[p.from:p.to])
		}
	}
	return ""
}

// cut says whether the first item of a tag is not whole.
func (r *doorRecord) cut(tag uint8) bool {
	i := slices.IndexFunc(r.data, func(p piece) bool { return p.tag == tag })
	return i >= 0 && r.data[i].status != syscall.Whole
}

// path is the path that names of a tag are.
func (r *doorRecord) path(tag uint8) string {
	var names []string
	whole := false
	for _, p := range r.data {
		switch p.tag {
		case tag:
			names = append(names, string(r.bytes[p.from:p.to]))
		case tag + 1:
			whole = true
		}
	}
	slices.Reverse(names)
	path := "/" + strings.Join(names, "/")
	if !whole {
		return "…" + path
	}
	return path
}

// door takes in a record of a door.
func (j *joiner) door(ctx context.Context, s origin, r *plugin.Record) {
	d := &doors[r.Probe-idDoor]
	wanted := slices.Contains(j.kinds, d.kind)
	if d.kind == trace.KindExec && wanted { // it runs another program now
		j.forget(r.Word(0), r.Word(1))
	}
	c := j.record(ctx, s, r)
	c.add(r, false)
	e := &j.unwanted
	if wanted {
		e = &trace.Event{}
	}
	*e = trace.Event{Time: c.entered, Source: j.source, Kind: d.kind, Name: d.name, VCPU: c.vcpu, TID: int32(c.ids), Process: c.process}
	rec := &doorRecord{ctx: ctx, call: c}
	parent := int32(-1)
	if len(c.words) > doorUser { // else the record was cut off
		parent, rec.user = int32(c.words[doorParent]), uint32(c.words[doorUser])
	}
	rec.comm, rec.text = rec.item(tagComm), rec.item(0)
	if e.Process == nil && c.task != 0 { // it is gone
		e.Process = &trace.Process{PID: int32(c.ids >> 32), PPID: parent, Comm: rec.comm, UID: rec.user, Started: time.Duration(c.born)}
	}
	if p := e.Process; p != nil && rec.comm != "" && e.TID == p.PID && (p.Comm != rec.comm || p.UID != rec.user) {
		as := *p // what was read of it is younger, or older
		as.Comm, as.UID = rec.comm, rec.user
		e.Process = &as
	}
	if r.Flags&plugin.Truncated != 0 {
		e.Note = "more than was kept"
	}
	d.read(j, e, rec)
	if p := e.Process; p != nil && p.Comm != "" && e.TID == p.PID && slices.Contains(lifeKinds, d.kind) {
		task := c.task
		if d.kind == trace.KindFork {
			task = rec.word(0)
		}
		j.processes.Introduce(virt.Addr(task), p)
		j.last.process = nil
	}
	if rec.drop || !wanted {
		j.free = append(j.free, c)
		return
	}
	c.event = e
	j.queue = append(j.queue, c)
}

func (j *joiner) doorExec(e *trace.Event, r *doorRecord) {
	var is trace.Process
	if e.Process != nil {
		is = *e.Process
	}
	// It may run another program by now.
	is.Exe, is.Comm, is.UID = j.program(r), r.comm, r.user
	e.Process, e.Object = &is, is.Exe
	if uint32(r.word(0)) == 0 {
		e.Object += trace.Deleted
	}
	args := r.item(1)
	list := strings.Split(strings.TrimSuffix(args, "\x00"), "\x00")
	if args == "" {
		list = nil
	}
	e.Run(list)
	if r.cut(1) && !strings.HasSuffix(e.Args, "…") {
		e.Args += " …"
	}
	if r.text != "" && r.text != is.Exe {
		e.Fields = append(e.Fields, "filename="+r.text)
	}
}

// program is the path of the program that an exec runs. A planted probe knows names inside of the file system only, and which that is
// where it is not the one at the process's root; without all names, what was asked for says more.
func (j *joiner) program(r *doorRecord) string {
	path := r.path(tagPath)
	if j.source != trace.FromPlanted {
		return path
	}
	if strings.HasPrefix(path, "…") && strings.HasPrefix(r.text, "/") {
		return r.text
	}
	if super := virt.Addr(r.word(execSuper)); super != 0 {
		if under := j.mounts.under(r.ctx, super); under != "/" {
			return under + path
		}
	}
	return path
}

// execSuper is the word of an exec that has the super_block whose path it is, behind links and the length of the arguments.
const execSuper = 2

func (j *joiner) doorFork(e *trace.Event, r *doorRecord) {
	by := e.Process
	child := &trace.Process{
		PID: int32(r.word(1)), PPID: int32(r.word(3)), Comm: r.text, UID: uint32(r.word(4)), Started: time.Duration(r.word(2)),
	}
	if by != nil {
		child.Exe, child.Container = by.Exe, by.Container
		e.Object = fmt.Sprintf("by %s (%d)", by.Comm, by.PID)
		if by.PID == child.PPID {
			child.Parent = by.Comm
		}
	}
	e.Process, e.TID = child, child.PID
}

func (j *joiner) doorExit(e *trace.Event, r *doorRecord) {
	const groupExit = 4 // SIGNAL_GROUP_EXIT
	code := uint32(r.word(0))
	if r.word(1)&groupExit != 0 {
		code = uint32(r.word(2))
	}
	e.End(code)
}

func (j *joiner) doorCreds(e *trace.Event, r *doorRecord) {
	const ids = len(doorLayout{}.ids)
	const words = ids + 4 // of each
	rights := func(from int) trace.Rights {
		w := func(i int) uint64 { return r.word(from + i) }
		var id [8]uint32 // in the order of doorLayout.ids
		for i := range min(ids, len(id)) {
			id[i] = uint32(w(i))
		}
		return trace.Rights{
			Known: len(r.words) >= doorWords+1+2*words,
			Credentials: linux.Credentials{
				UID: id[0], GID: id[1], SUID: id[2], EUID: id[3], EGID: id[4], FSUID: id[5], SGID: id[6], FSGID: id[7], UserNS: w(ids + 3),
			},
			Caps: linux.Capabilities{Inheritable: w(ids), Permitted: w(ids + 1), Effective: w(ids + 2)},
		}
	}
	caller := j.place(r.word(0))
	function, _, _ := strings.Cut(caller, "+")
	e.Name = function
	was, now := rights(1), rights(1+words)
	ran := trace.RanUnknown
	if j.names != nil && r.word(0) != 0 { // else only its address is known, or not even that
		ran = trace.RunsProgram(function)
	}
	e.Change(was, now, ran)
	if e.Process != nil && e.Process.UID != now.UID {
		is := *e.Process
		is.UID = now.UID
		e.Process = &is
	}
	j.forget(r.task, r.ids)
}

// protocols are the names that [network] has for them, of sockets of inet.
func protocolName(family, protocol uint64) string {
	switch family {
	case familyVsock:
		return "vsock"
	case familyPacket:
		return "packet"
	}
	switch protocol {
	case protocolTCP:
		return "tcp"
	case 17:
		return "udp"
	case 1, 58:
		return "icmp"
	case 132:
		return "sctp"
	case 136:
		return "udplite"
	case protocolMP:
		return "mptcp"
	}
	return "protocol " + strconv.FormatUint(protocol, 10)
}

func (j *joiner) doorSocket(e *trace.Event, r *doorRecord) {
	family := r.word(0)
	k := network.Socket{Protocol: protocolName(family, r.word(1)), Family: uint16(family)}
	port := uint16(r.word(3))
	k.LocalPort, k.RemotePort = uint32(r.word(2)), uint32(port>>8|port<<8)
	six := func(i int) netip.Addr {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], r.word(i))
		binary.LittleEndian.PutUint64(b[8:], r.word(i+1))
		return netip.AddrFrom16(b)
	}
	four := func(i int) netip.Addr {
		var b [4]byte
		binary.LittleEndian.PutUint32(b[:], uint32(r.word(i)))
		return netip.AddrFrom4(b)
	}
	switch family {
	case familyInet:
		k.Local, k.Remote = four(4), four(5)
	case familyInet6:
		k.Local, k.Remote = six(6), six(8)
	default:
		k.LocalPort, k.RemotePort = 0, 0 // they are elsewhere
	}
	if e.Kind == trace.KindListen {
		k.Remote, k.RemotePort = netip.Addr{}, 0
	}
	e.Name, e.Object = k.Protocol, k.Endpoints()
}

func (j *joiner) doorConnect(e *trace.Event, r *doorRecord) {
	b := []byte(r.text)
	if len(b) < 2 {
		r.drop = true
		return
	}
	family := binary.LittleEndian.Uint16(b)
	k := network.Socket{Family: family, Protocol: protocolName(uint64(family), r.word(0))}
	var at netip.Addr
	port := uint32(0)
	switch {
	case family == familyInet && len(b) >= 8:
		at, port = netip.AddrFrom4([4]byte(b[4:8])), uint32(binary.BigEndian.Uint16(b[2:]))
	case family == familyInet6 && len(b) >= 24:
		at, port = netip.AddrFrom16([16]byte(b[8:24])), uint32(binary.BigEndian.Uint16(b[2:]))
	case family == familyVsock && len(b) >= 12:
		k.HasCID, port = true, binary.LittleEndian.Uint32(b[4:])
		k.RemoteCID = binary.LittleEndian.Uint32(b[8:])
	}
	if e.Kind == trace.KindListen {
		k.Local, k.LocalPort = at, port
		e.Name, e.Object = k.Protocol, k.Endpoints()
		return
	}
	k.Remote, k.RemotePort = at, port
	e.Name, e.Object = k.Protocol, strings.Replace(k.Endpoints(), "->", " ->", 1) // its own end is any
}

func (j *joiner) doorRaw(e *trace.Event, r *doorRecord) {
	e.Name = "raw"
	if r.word(0) == familyPacket {
		e.Name = "packet"
	}
	number := uint16(r.word(1))
	if e.Name == "packet" { // an EtherType, as the wire has it
		number = number>>8 | number<<8
		e.Object = fmt.Sprintf("packet %#04x", number)
		return
	}
	e.Object = fmt.Sprintf("raw %d", number)
}

func (j *joiner) doorModule(e *trace.Event, r *doorRecord) {
	e.Object = r.text
	if e.Kind == trace.KindUnload {
		return
	}
	e.Args = fmt.Sprintf("at %#x", r.word(1))
	if taint := linux.TaintLetters(r.word(0)); taint != "" {
		e.Note = "taints the kernel: " + taint
	}
}

func (j *joiner) doorLog(e *trace.Event, r *doorRecord) {
	under := ""
	if super := virt.Addr(r.word(0)); super != 0 { // else the paths begin at the root
		under = j.mounts.under(r.ctx, super)
	}
	path := func(tag uint8) string {
		p := r.path(tag)
		if under != "" && under != "/" && strings.HasPrefix(p, "/") {
			return under + p
		}
		return p
	}
	size, links := r.word(1), uint32(r.word(2))
	e.Object = path(tagPath)
	switch e.Name {
	case "delete":
		e.Args = fmt.Sprintf("deleted, %d bytes", size)
		if links > 0 {
			e.Args += fmt.Sprintf(", %d other names left", links)
		}
	case "truncate":
		e.Args = fmt.Sprintf("emptied, %d bytes", size)
		if to := r.word(3); to > 0 {
			e.Args = fmt.Sprintf("cut from %d to %d bytes", size, to)
		}
	case "rename":
		if r.word(3) == logNew {
			e.Args = "replaced by " + e.Object
			e.Object = path(tagOther)
		} else {
			e.Args = "renamed to " + path(tagOther)
		}
	}
}
