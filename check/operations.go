package check

import (
	"context"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "operations-table",
		Title:     "Tables of operations that were copied, or that lead to code of others",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source:    "file.f_op, inode.i_op, i_fop and i_mapping.a_ops, dentry.d_op, super_block.s_op, s_export_op and s_d_op, proc_dir_entry, socket.ops, sock.sk_prot, inet_protos, inet6_protos, inetsw, ptype_base, net_device, chrdevs, gendisk.fops, tty_struct.ops (against its driver's) and ldisc (against tty_ldiscs), ctl_table.proc_handler, request_queue.mq_ops, miscdevice, net_families, rtnl_msg_handlers, vm_area_struct.vm_ops, task_struct.sched_class and restart_block.fn",
		Proves: `A file, an entry of /proc, a file system, a socket, a protocol, a terminal or a device is served by functions of unknown owners, by a table in memory that was allocated
(the kernel and modules have theirs in their own data), a table of the kernel's own leads to code of a module, a module has a copy of a table of the kernel's: with a function that the
kernel exports to no module, or a module that nobody vouches for serves what is not its own: a file of a file system of another's, a network device that it does not drive. This is how directories, entries of /proc and sockets are hidden.`,
		Blind: `A table in the data of a module that a key of the kernel signed, all of whose functions are the module's own or exported to modules. Where no module is signed, that of one that says it was built with
the kernel. Files of file systems in which any module makes files (debugfs, configfs …), network devices, where the module drives another one, and sockets: modules take those of programs over (TLS, OpenVPN, iSCSI). A function of
the kernel's own that was exchanged for another of its own. Objects that nothing in memory leads to.`,
		Next: `Disassemble the function with the command shown. What was replaced says what for: iterate_shared and readdir hide files and processes, seq_show of tcp
hides connections, the handler of a protocol waits for a packet that nobody else understands.`,
		Example: `The function that shows the lines of /proc/net/tcp was exchanged for code in memory that was allocated:

    $ outsight check lab:demo --only operations-table
    SEVERITY  CONFIDENCE  CHECK             TITLE
    critical  certain     operations-table  /proc/net/tcp has a function show whose owner is unknown

A module that is on the list compares names of a folder in its own way, so that some are not found:

    critical  likely      operations-table  a file of ext4 has dentry_operations of module fu (out of tree, unsigned)
    $ outsight struct lab:demo dentry_operations 0xffffffffc0503400`,
		Quick: true,
		Run:   operationsTables, // its parts are kept one by one
	})
}

// operations is one kind of table, and which of its members are functions.
type operations struct {
	structure string
	// data are members that are not functions; functions, where it is not empty, are the only
	// ones that are.
	data, functions []string
	// allocated says that a healthy kernel allocates some.
	allocated bool
	// copied says that modules copy tables of the kernel's: TLS and MPTCP those of sockets, line
	// disciplines that of n_tty.
	copied bool
	// own says that those that lie in the kernel have functions of the kernel alone, though it allocates others.
	own bool

	members []opsMember
	size    int
}

type opsMember struct {
	name   string
	offset uint32
}

// The kinds. What is not a function is an owner, flags or a number.
var (
	fileOps   = operations{structure: "file_operations", data: []string{"owner", "fop_flags", "mmap_supported_flags"}}
	inodeOps  = operations{structure: "inode_operations"}
	spaceOps  = operations{structure: "address_space_operations"}
	superOps  = operations{structure: "super_operations"}
	exportOps = operations{structure: "export_operations", data: []string{"flags"}}
	dentryOps = operations{structure: "dentry_operations"}
	procOps   = operations{structure: "proc_ops", data: []string{"proc_flags"}}
	seqOps    = operations{structure: "seq_operations"}
	socketOps = operations{structure: "proto_ops", copied: true, data: []string{"family", "owner"}}
	protoOps  = operations{structure: "proto", copied: true, functions: []string{
		"close", "pre_connect", "connect", "disconnect", "accept", "ioctl", "init", "destroy", "shutdown", "setsockopt", "getsockopt", "keepalive", "sendmsg", "recvmsg",
		"splice_eof", "sendpage", "bind", "bind_add", "backlog_rcv", "release_cb", "hash", "unhash", "rehash", "get_port", "put_port", "psock_update_sk_prot",
		"stream_memory_free", "sock_is_readable", "enter_memory_pressure", "leave_memory_pressure", "diag_destroy",
	}}
	inetOps  = operations{structure: "net_protocol", functions: []string{"handler", "err_handler"}}
	inet6Ops = operations{structure: "inet6_protocol", functions: []string{"handler", "err_handler"}}
	// Packets are taken by what each socket of its kind, and each module, has allocated.
	packetOps = operations{structure: "packet_type", functions: []string{"func", "list_func", "id_match"}, allocated: true}
	deviceOps = operations{structure: "net_device_ops"}
	headerOps = operations{structure: "header_ops"}
	// Drivers copy tables of files and of shared memory for their mappings. uffd_ops (7.2) leads to a table.
	mappingOps = operations{structure: "vm_operations_struct", copied: true, data: []string{"uffd_ops"}}
	classOps   = operations{structure: "sched_class", data: []string{"next"}}
	blockOps   = operations{structure: "block_device_operations", data: []string{"owner"}}
	queueOps   = operations{structure: "blk_mq_ops"}
	// A line discipline's name and owner are not functions.
	disciplineOps = operations{structure: "tty_ldisc_ops", copied: true, data: []string{"name", "owner"}}
	terminalOps   = operations{structure: "tty_operations", copied: true}
	// Switches of DSA have copies of those of the device above them (dsa_conduit_ethtool_setup).
	ethtoolOps = operations{structure: "ethtool_ops", allocated: true, functions: []string{
		"get_drvinfo", "get_link", "get_msglevel", "begin", "complete", "get_strings", "get_ethtool_stats", "get_ringparam", "get_channels", "get_ts_info",
	}}
	// A namespace has copies of the tables of sysctls, and so have modules.
	sysctlOps     = operations{structure: "ctl_table", allocated: true, own: true, functions: []string{"proc_handler"}}
	sockFunctions = operations{structure: "sock", allocated: true, functions: []string{
		"sk_state_change", "sk_data_ready", "sk_write_space", "sk_error_report", "sk_backlog_rcv", "sk_destruct",
	}}
)

// opsWalk is one run of the check.
type opsWalk struct {
	s       *Subject
	r       kobj.Reader
	owners  *linux.Owners
	fixed   run // the kernel's read-only data
	late    run // what of it was written until the kernel had started
	image   run // all of the kernel
	layouts map[*operations]*operations
	seen    map[opsKey]bool
	buffer  []byte
	left    int // of the objects that may still be looked at
	ctx     context.Context
	results []opsResult
	ended   bool
	key     opsKey    // that is judged
	doubted virt.Addr // table of which is judged whether it is in its place

	types   map[virt.Addr]server // of file systems
	drivers map[string]bool      // modules that have the operations of a network device
	others  []otherServer
	faulty  map[virt.Addr]bool // tables of which something was found

	linux   *linux.System // that objects are read of: of the look, or of a later time
	passing *passingOps   // that is judged; nil: the object does not pass by itself
	room    passingOps
}

type opsKey struct {
	kind  *operations
	table virt.Addr
	of    virt.Addr // module whose object it serves, if that was judged: 1 is the kernel
}

// maxOpsObjects bounds the objects that are looked at: lists within lists of a hostile guest
// would take for ever.
const maxOpsObjects = 1<<20 + maxJudgedInodes

// spend counts one object, and reports whether there may be more.
func (w *opsWalk) spend() bool {
	if w.left--; w.left == 0 {
		w.fail(fmt.Errorf("tables of operations: %w", kobj.ErrBudget))
	}
	return w.left > 0 && !w.ended
}

func newOpsWalk(ctx context.Context, s *Subject) (*opsWalk, error) {
	owners, err := s.Owners()
	if err != nil {
		return nil, err
	}
	w := &opsWalk{
		s: s, linux: s.Linux, r: s.Linux.Reader(), owners: owners, layouts: map[*operations]*operations{}, seen: map[opsKey]bool{}, left: maxOpsObjects, ctx: ctx,
		types: map[virt.Addr]server{}, drivers: map[string]bool{}, faulty: map[virt.Addr]bool{},
	}
	if err := s.Linux.Prefetch("_end", "__start_rodata", "__end_rodata", "__start_ro_after_init", "__end_ro_after_init"); err != nil {
		return nil, err
	}
	if end, ok := s.Linux.Address("_end"); ok {
		w.image = run{start: s.Linux.Text, end: end}
	}
	w.fixed, w.late = s.between("__start_rodata", "__end_rodata"), s.between("__start_ro_after_init", "__end_ro_after_init")
	return w, nil
}

// between is what lies between two symbols; nothing, if one is missing.
func (s *Subject) between(first, last string) run { return between(s.Linux, first, last) }

func between(s *linux.System, first, last string) (r run) {
	start, ok1 := s.Address(first)
	end, ok2 := s.Address(last)
	if ok1 && ok2 {
		r.start, r.end = start, end
	}
	return r
}

func (r run) holds(a virt.Addr) bool { return a >= r.start && a < r.end }

// layout is where the functions of a kind of table lie in this kernel; nil if it has none.
func (w *opsWalk) layout(kind *operations) *operations {
	if known, ok := w.layouts[kind]; ok {
		return known
	}
	var l *operations
	if members, err := w.s.Linux.Members(kind.structure); err == nil {
		l = &operations{structure: kind.structure}
		for _, m := range members {
			if m.Size != 8 || m.Name == "" || slices.Contains(kind.data, m.Name) || len(kind.functions) > 0 && !slices.Contains(kind.functions, m.Name) {
				continue
			}
			l.members = append(l.members, opsMember{m.Name, m.Offset})
			l.size = max(l.size, int(m.Offset)+8)
		}
	}
	w.layouts[kind] = l
	return l
}

// judge judges the table that an object has. Each table is judged once in each part, with the object
// that led to it first: what names it is called only for a finding.
func (w *opsWalk) judge(kind *operations, table virt.Addr, object func() string) {
	if table == 0 || w.ended {
		return
	}
	key := opsKey{kind: kind, table: table}
	if w.seen[key] || len(w.seen) >= kobj.MaxElements {
		return
	}
	w.seen[key] = true
	if w.passing != nil {
		w.passing.seen = append(w.passing.seen, key)
	}
	l := w.layout(kind)
	if l == nil || len(l.members) == 0 {
		return
	}
	w.key = key
	w.judgeTable(kind, l, table, object)
	w.key = opsKey{}
}

// judgeTable judges the functions of a table.
func (w *opsWalk) judgeTable(kind, l *operations, table virt.Addr, object func() string) {
	holder := w.owners.HolderAt(table)
	if holder.Kind == linux.OwnerNone && !kind.allocated {
		w.found(kind, table, object(), "is served by a table of functions in memory that was allocated", "a table in the data of the kernel or a module", fmt.Sprintf("memory of an unknown owner at %#x", uint64(table)), table, "")
	}
	if cap(w.buffer) < l.size {
		w.buffer = make([]byte, l.size)
	}
	b := w.buffer[:l.size]
	if err := w.linux.ReadAt(b, table); err != nil {
		w.fail(fmt.Errorf("%s of %s at %#x: %w", kind.structure, object(), uint64(table), err))
		return
	}
	// What is written until the kernel has started no module can write: they come later. And
	// what is the kernel's own no module leaves its functions in: it may be unloaded.
	constant := w.fixed.holds(table) || holder.Kind == linux.OwnerKernel && (!kind.allocated || kind.own)
	for _, m := range l.members {
		f := virt.Addr(linux.FieldIn(b, kobj.FieldAt(m.offset, 8)))
		if f == 0 {
			continue
		}
		switch owner := w.owners.OwnerAt(f); {
		case owner.Kind == linux.OwnerNone:
			w.found(kind, table, object(), fmt.Sprintf("has a function %s whose owner is unknown", m.name), "a function of the kernel or a module", fmt.Sprintf("%#x", uint64(f)), f, m.name)
		case constant && owner.Kind != linux.OwnerKernel:
			w.found(kind, table, object(), fmt.Sprintf("has a function %s of %s in a table of the kernel's own", m.name, owner), "a function of the kernel itself", fmt.Sprintf("%s (%#x)", w.owners.CodeAt(f).Function(), uint64(f)), f, m.name)
		case holder.Kind == linux.OwnerModule && owner.Kind == linux.OwnerKernel && !kind.copied && !kind.allocated && w.unexported(f):
			w.found(kind, table, object(), fmt.Sprintf("is served by a table of %s that was copied from the kernel: its function %s is %s", holder, m.name, w.owners.CodeAt(f).Function()),
				"functions of the module, and those that the kernel exports to modules", fmt.Sprintf("%s (%#x), which is not exported", w.owners.CodeAt(f).Function(), uint64(f)), f, m.name)
			return // one function of the copy is enough
		}
	}
}

func (w *opsWalk) found(kind *operations, table virt.Addr, object, what, expected, seen string, at virt.Addr, member string) {
	w.foundAs(Certain, kind, table, object, what, expected, seen, at, member)
}

func (w *opsWalk) foundAs(c Confidence, kind *operations, table virt.Addr, object, what, expected, seen string, at virt.Addr, member string) {
	if w.ended {
		return
	}
	w.faulty[table] = true
	show := fmt.Sprintf("outsight struct {} %s %#x", kind.structure, uint64(table))
	evidence := []Evidence{{Text: "struct " + kind.structure, Addr: table}}
	if member != "" {
		show = fmt.Sprintf("outsight disassemble {} %#x", uint64(at))
		evidence = append(evidence, Evidence{Text: "what " + member + " leads to", Addr: at, Bytes: codeAt(w.s, uint64(at))})
	}
	w.report(&Finding{
		Confidence: c,
		Title:      object + " " + what,
		Object:     Object{Kind: kind.structure, Name: object + " " + member, Addr: table},
		Expected:   expected,
		Seen:       seen,
		Evidence:   evidence,
		Basis:      "the guest's kernel and its lists of modules and BPF programs: whose data and whose code lies where",
		Show:       show,
	}, nil)
}

// fail reports what could not be read.
func (w *opsWalk) fail(err error) { w.report(nil, err) }

// report notes what was found or could not be read, or keeps it until it is known whether the
// object is still there.
func (w *opsWalk) report(f *Finding, err error) {
	r := opsResult{f, err, w.key, w.doubted}
	switch {
	case w.ended:
	case w.passing != nil:
		w.passing.found = append(w.passing.found, r)
	default:
		w.results = append(w.results, r)
		w.ended = len(w.results) > maxFindings
	}
}
