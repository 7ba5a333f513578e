package check

import (
	"context"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/sysctl"
	"github.com/outsight-vmi/outsight/virt"
)

// opsLayout is where objects have their tables of operations.
type opsLayout struct {
	file, dentry, inodeOf, path                                kobj.Field // of file and dentry
	mode, mapping, ownMapping, spaceOp, aliases, alias         kobj.Field // of inode and address_space
	typeOwner, typeFlags, deviceFlags                          kobj.Field
	inode, fileDefault, super                                  kobj.Field // of inode
	superList, inodes, inodeList, superOp, export, dentryOp    kobj.Field
	fsType, typeName                                           kobj.Field
	socketInode, socket, socketOp, sock, sockOp                kobj.Field
	entryName, entryInode, entryOp, entrySeq, entryDentry      kobj.Field
	subdir, subdirNode, entryMode                              kobj.Field
	switchList, switchProto, switchOp                          kobj.Field
	packetList                                                 kobj.Field
	netList, devices, proc, deviceList, deviceName, netPackets kobj.Field
	netSpecific, deviceOp, headerOp, ethtoolOp, receive        kobj.Field
	devicePackets, deviceSpecific                              kobj.Field
	class, restart                                             kobj.Field // of task_struct
	diskQueue, queueOp                                         kobj.Field
}

func opsLayoutOf(s *linux.System) (*opsLayout, error) {
	return kobj.LayoutOf(s.Walker, "tables of operations", func(r *kobj.Resolver, o *opsLayout) {
		r.Prefetch("proc_root", "proc_seq_ops", "proc_single_ops", "inet_protos", "inet6_protos", "inetsw", "inetsw6", "ptype_base", "ptype_all", "net_namespace_list", "super_blocks")
		const file, inode, super, pde, net, dev = "file", "inode", "super_block", "proc_dir_entry", "net", "net_device"
		*o = opsLayout{
			file: r.Field(file, "f_op"), path: r.Field(file, "f_path.dentry"), dentry: r.Field("dentry", "d_op"), inodeOf: r.Field(file, "f_inode"),
			inode: r.Field(inode, "i_op"), fileDefault: r.Field(inode, "i_fop"), super: r.Field(inode, "i_sb"), inodeList: r.Field(inode, "i_sb_list"),
			mode: r.Field(inode, "i_mode"), mapping: r.Field(inode, "i_mapping"), ownMapping: r.Field(inode, "i_data"), spaceOp: r.Field("address_space", "a_ops"),
			aliases: r.Optional(inode, "i_dentry"), alias: r.Optional("dentry", "d_u.d_alias", "d_alias"),
			typeOwner: r.Optional("file_system_type", "owner"), typeFlags: r.Field("file_system_type", "fs_flags"), deviceFlags: r.Optional(dev, "flags"),
			superList: r.Field(super, "s_list"), inodes: r.Field(super, "s_inodes"), superOp: r.Field(super, "s_op"), export: r.Optional(super, "s_export_op"),
			dentryOp: r.Optional(super, "s_d_op", "__s_d_op"), // renamed in 6.17
			fsType:   r.Field(super, "s_type"), typeName: r.Field("file_system_type", "name"),
			socketInode: r.Optional("socket_alloc", "vfs_inode"), socket: r.Optional("socket_alloc", "socket"), socketOp: r.Optional("socket", "ops"), sock: r.Optional("socket", "sk"),
			sockOp:    r.Optional("sock", "__sk_common.skc_prot"),
			entryName: r.Optional(pde, "name"), entryInode: r.Optional(pde, "proc_iops"), entryOp: r.Optional(pde, "proc_ops"), entrySeq: r.Optional(pde, "seq_ops"),
			entryDentry: r.Optional(pde, "proc_dops"), subdir: r.Optional(pde, "subdir"), subdirNode: r.Optional(pde, "subdir_node"), entryMode: r.Optional(pde, "mode"),
			switchList: r.Optional("inet_protosw", "list"), switchProto: r.Optional("inet_protosw", "prot"), switchOp: r.Optional("inet_protosw", "ops"),
			packetList: r.Optional("packet_type", "list"),
			netList:    r.Optional(net, "list"), devices: r.Optional(net, "dev_base_head"), proc: r.Optional(net, "proc_net"),
			netPackets: r.Optional(net, "ptype_all"), netSpecific: r.Optional(net, "ptype_specific"), // 6.15
			deviceList: r.Optional(dev, "dev_list"), deviceName: r.Optional(dev, "name"), deviceOp: r.Optional(dev, "netdev_ops"), headerOp: r.Optional(dev, "header_ops"),
			ethtoolOp: r.Optional(dev, "ethtool_ops"), receive: r.Optional(dev, "rx_handler"), devicePackets: r.Optional(dev, "ptype_all"), deviceSpecific: r.Optional(dev, "ptype_specific"),
			diskQueue: r.Optional("gendisk", "queue"), queueOp: r.Optional("request_queue", "mq_ops"),
			class: r.Optional("task_struct", "sched_class"), restart: r.Optional("task_struct", "restart_block.fn"),
		}
	})
}

// files judges what is open.
func (w *opsWalk) files(ctx context.Context, o *opsLayout) {
	seen := map[virt.Addr]bool{}
	err := w.s.Linux.HeldFiles(ctx, func(h linux.HeldObject) {
		if seen[h.File] || !w.spend() {
			return
		}
		seen[h.File] = true
		w.judgePassing(func() bool { return w.s.Linux.StillHeld(h) }, func() { w.held(o, h) })
	}, w.fail)
	if err != nil {
		w.fail(err)
	}
}

// held judges an open file.
func (w *opsWalk) held(o *opsLayout, h linux.HeldObject) {
	name := func() string { return fmt.Sprintf("descriptor %d of process %d", h.FD, h.PID) }
	w.r.Err = nil
	inode := w.r.Pointer(h.File, o.inodeOf)
	super := w.r.Pointer(inode, o.super)
	kind := &fileOps
	fs := w.fileSystem(o, super)
	if fs.name == "debugfs" {
		kind = &proxyOps
	}
	ops := w.r.Pointer(h.File, o.file)
	w.judge(kind, ops, name)
	if plain(w.r.Uint(inode, o.mode)) {
		w.served(kind, ops, fs, name)
	}
	w.inode(o, inode, fs, name)
	w.super(o, super)
	if dentry := w.r.Pointer(h.File, o.path); dentry != 0 {
		w.judge(&dentryOps, w.r.Pointer(dentry, o.dentry), name)
	}
	if o.socketInode.Present() && fs.name == "sockfs" {
		w.socket(o, inode-virt.Addr(o.socketInode.Offset), name)
	}
	if w.r.Err != nil {
		w.fail(fmt.Errorf("%s: %w", name(), w.r.Err))
	}
}

// proxyOps are those of an open file of debugfs, which are made for it (full_proxy_open, up
// to 6.13).
var proxyOps = operations{structure: fileOps.structure, data: fileOps.data, allocated: true}

// maxAliases bounds the names of a file that are looked at.
const maxAliases = 256

// inode judges a file, by its inode and its names.
func (w *opsWalk) inode(o *opsLayout, inode virt.Addr, fs server, name func() string) {
	if inode == 0 {
		return
	}
	ops, files, mapping, mode := w.r.Pointer(inode, o.inode), w.r.Pointer(inode, o.fileDefault), w.r.Pointer(inode, o.mapping), w.r.Uint(inode, o.mode)
	space := w.r.Pointer(mapping, o.spaceOp)
	if w.r.Err != nil {
		return
	}
	w.judge(&inodeOps, ops, name)
	w.judge(&fileOps, files, name)
	w.served(&inodeOps, ops, fs, name)
	if plain(mode) {
		w.served(&fileOps, files, fs, name)
		if fs.closed && mapping == o.ownMapping.At(inode) { // else it is of a device; aufs allocates some
			w.judge(&spaceOps, space, name)
			w.served(&spaceOps, space, fs, name)
		}
	}
	if !o.aliases.Present() || !o.alias.Present() {
		return
	}
	for node, n := w.r.Pointer(inode, o.aliases), 0; node != 0 && w.r.Err == nil && n < maxAliases; n++ {
		names := w.r.Pointer(node-o.alias.At(0), o.dentry)
		if w.r.Err == nil {
			w.judge(&dentryOps, names, name)
			w.served(&dentryOps, names, fs, name)
		}
		node = w.r.Ptr(node)
	}
}

func (w *opsWalk) super(o *opsLayout, super virt.Addr) {
	if super == 0 || w.r.Err != nil {
		return
	}
	fs := w.fileSystem(o, super)
	name := func() string { return "the file system " + fs.name }
	ops, export, dentry := w.r.Pointer(super, o.superOp), w.r.Pointer(super, o.export), w.r.Pointer(super, o.dentryOp)
	if w.r.Err == nil {
		w.judge(&superOps, ops, name)
		w.judge(&exportOps, export, name)
		w.judge(&dentryOps, dentry, name)
		w.served(&superOps, ops, fs, name)
		w.served(&exportOps, export, fs, name)
		w.served(&dentryOps, dentry, fs, name)
	}
}

// socket judges a socket by its struct socket_alloc.
func (w *opsWalk) socket(o *opsLayout, a virt.Addr, name func() string) {
	socket := o.socket.At(a)
	w.judge(&socketOps, w.r.Pointer(socket, o.socketOp), name)
	if sk := w.r.Pointer(socket, o.sock); sk != 0 && w.r.Err == nil {
		w.judge(&protoOps, w.r.Pointer(sk, o.sockOp), name)
		w.judge(&sockFunctions, sk, name)
	}
}

// sysctls judges the functions by which settings are read and set.
func (w *opsWalk) sysctls(ctx context.Context, _ *opsLayout) {
	for c, err := range sysctl.Entries(ctx, w.s.Linux) {
		switch {
		case !w.spend():
			return
		case errors.Is(err, kobj.ErrUnsupported): // built without
		case err != nil:
			w.fail(err)
		default:
			w.judge(&sysctlOps, c.Addr, func() string { return "sysctl " + c.Name })
		}
	}
}

// maxJudgedInodes bounds the files in memory that are looked at of all file systems.
const maxJudgedInodes = 1 << 20

// superBlocks judges file systems, with the files of theirs that are in memory.
func (w *opsWalk) superBlocks(ctx context.Context, o *opsLayout) {
	left := maxJudgedInodes
	for super, err := range w.s.Linux.SuperBlocks(ctx) {
		if !w.spend() {
			return
		}
		if err != nil {
			w.fail(err)
			continue
		}
		w.r.Err = nil
		w.super(o, super.Addr)
		fs := w.fileSystem(o, super.Addr)
		for node, err := range w.s.Linux.List(ctx, o.inodes.At(super.Addr), maxJudgedInodes) {
			if left--; left < 0 {
				w.fail(fmt.Errorf("files of %s: %w: only %d files in memory were looked at", super.Type, kobj.ErrBudget, maxJudgedInodes))
				return
			}
			if !w.spend() {
				return
			}
			if err != nil {
				w.fail(fmt.Errorf("files of %s: %w", super.Type, err))
				break
			}
			w.judgePassing(func() bool { return w.s.Linux.Linked(node) }, func() {
				w.r.Err = nil
				w.inode(o, node-o.inodeList.At(0), fs, func() string { return "a file of " + super.Type })
			})
		}
	}
}

const (
	maxEntries = 1 << 16 // of /proc
	maxDepth   = 32
)

// procEntries judges what drivers and protocols have in /proc.
func (w *opsWalk) procEntries(ctx context.Context, o *opsLayout) {
	if !o.subdir.Present() || !o.subdirNode.Present() {
		return
	}
	left := maxEntries
	if root, ok := w.s.Linux.Address("proc_root"); ok {
		w.entry(ctx, o, root, "/proc", 0, &left)
	}
	if !o.proc.Present() {
		return
	}
	w.eachNetwork(ctx, o, func(net virt.Addr) {
		if a := w.r.Pointer(net, o.proc); a != 0 && w.r.Err == nil {
			w.entry(ctx, o, a, "/proc/net", 0, &left)
		}
	})
}

// entry judges an entry of /proc and those below it.
func (w *opsWalk) entry(ctx context.Context, o *opsLayout, a virt.Addr, path string, depth int, left *int) {
	if *left--; *left < 0 || depth > maxDepth || !w.spend() || ctx.Err() != nil {
		return
	}
	w.r.Err = nil
	mode := w.r.Uint(a, o.entryMode)
	inode, ops, seq, dentry := w.r.Pointer(a, o.entryInode), w.r.Pointer(a, o.entryOp), w.r.Pointer(a, o.entrySeq), w.r.Pointer(a, o.entryDentry)
	if w.r.Err != nil {
		w.fail(fmt.Errorf("%s: %w", path, w.r.Err))
		return
	}
	name := func() string { return path }
	const typeMask, directory = 0o170000, 0o040000
	w.judge(&inodeOps, inode, name)
	w.judge(&dentryOps, dentry, name)
	if mode&typeMask == directory {
		w.judge(&fileOps, ops, name) // proc_dir_ops is in its place
	} else {
		w.judge(&procOps, ops, name)
		switch w.owners.MemoryAt(ops).Symbol {
		case "proc_seq_ops", "proc_net_seq_ops":
			w.judge(&seqOps, seq, name)
		case "proc_single_ops", "proc_net_single_ops": // its one function stands in the entry
			w.function(a, seq, "single_show", name)
		}
	}
	for node, err := range w.s.Linux.RBTree(ctx, o.subdir.At(a), maxEntries) {
		if err != nil {
			w.fail(fmt.Errorf("%s: %w", path, err))
			return
		}
		child := node - o.subdirNode.At(0)
		w.r.Err = nil
		w.entry(ctx, o, child, path+"/"+w.r.CString(w.r.Pointer(child, o.entryName), 256), depth+1, left)
	}
}

// procSingle stands for functions that are in the object itself.
var procSingle = operations{structure: "proc_dir_entry"}

// function judges a function that no table holds.
func (w *opsWalk) function(object, f virt.Addr, member string, name func() string) {
	if f != 0 && w.owners.OwnerAt(f).Kind == linux.OwnerNone {
		w.found(&procSingle, object, name(), fmt.Sprintf("has a function %s whose owner is unknown", member), "a function of the kernel or a module", fmt.Sprintf("%#x", uint64(f)), f, member)
	}
}

// protocols judges who handles what comes over IP, and what sockets of the internet are made
// of.
func (w *opsWalk) protocols(ctx context.Context, o *opsLayout) {
	const protocols = 256 // MAX_INET_PROTOS
	for _, t := range []struct {
		symbol string
		kind   *operations
	}{{"inet_protos", &inetOps}, {"inet6_protos", &inet6Ops}} {
		a, ok := w.s.Linux.Address(t.symbol)
		if !ok {
			continue
		}
		table, err := w.s.Linux.Pointers(a, protocols)
		if err != nil {
			w.fail(fmt.Errorf("%s: %w", t.symbol, err))
			continue
		}
		for number, p := range table {
			w.judge(t.kind, p, func() string { return fmt.Sprintf("%s[%d]", t.symbol, number) })
		}
	}
	const types, maxSwitches = 11, 256 // SOCK_MAX
	for _, symbol := range []string{"inetsw", "inetsw6"} {
		a, ok := w.s.Linux.Address(symbol)
		if !ok || !o.switchList.Present() {
			continue
		}
		for kind := range virt.Addr(types) {
			for node, err := range w.s.Linux.List(ctx, a+16*kind, maxSwitches) {
				if err != nil {
					w.fail(fmt.Errorf("%s: %w", symbol, err))
					break
				}
				if !w.spend() {
					return
				}
				p := node - o.switchList.At(0)
				name := func() string { return fmt.Sprintf("%s[%d]", symbol, kind) }
				w.r.Err = nil
				w.judge(&protoOps, w.r.Pointer(p, o.switchProto), name)
				w.judge(&socketOps, w.r.Pointer(p, o.switchOp), name)
			}
		}
	}
	const hashed = 16 // PTYPE_HASH_SIZE
	if a, ok := w.s.Linux.Address("ptype_base"); ok {
		for i := range virt.Addr(hashed) {
			w.packets(ctx, o, a+16*i)
		}
	}
	if a, ok := w.s.Linux.Address("ptype_all"); ok {
		w.packets(ctx, o, a)
	}
}

// packets judges who takes packets.
func (w *opsWalk) packets(ctx context.Context, o *opsLayout, head virt.Addr) {
	if !o.packetList.Present() {
		return
	}
	for node, err := range w.s.Linux.List(ctx, head, kobj.MaxElements) {
		if err != nil {
			w.fail(fmt.Errorf("handlers of packets at %#x: %w", uint64(head), err))
			return
		}
		if !w.spend() {
			return
		}
		p := node - o.packetList.At(0)
		w.judge(&packetOps, p, func() string { return fmt.Sprintf("the handler of packets at %#x", uint64(p)) })
	}
}

// eachNetwork calls f for each network namespace.
func (w *opsWalk) eachNetwork(ctx context.Context, o *opsLayout, f func(net virt.Addr)) {
	head, ok := w.s.Linux.Address("net_namespace_list")
	if !ok || !o.netList.Present() {
		return
	}
	for node, err := range w.s.Linux.List(ctx, head, kobj.MaxElements) {
		if err != nil {
			w.fail(fmt.Errorf("network namespaces: %w", err))
			return
		}
		if !w.spend() {
			return
		}
		w.r.Err = nil
		f(node - o.netList.At(0))
	}
}

// networks judges network devices, and who takes their packets.
func (w *opsWalk) networks(ctx context.Context, o *opsLayout) {
	w.eachNetwork(ctx, o, func(net virt.Addr) {
		if o.netPackets.Present() {
			w.packets(ctx, o, o.netPackets.At(net))
		}
		if o.netSpecific.Present() {
			w.packets(ctx, o, o.netSpecific.At(net))
		}
		if !o.devices.Present() || !o.deviceList.Present() {
			return
		}
		for node, err := range w.s.Linux.List(ctx, o.devices.At(net), kobj.MaxElements) {
			if err != nil {
				w.fail(fmt.Errorf("network devices: %w", err))
				return
			}
			if !w.spend() {
				return
			}
			w.device(ctx, o, node-o.deviceList.At(0))
		}
	})
	w.devicesServed()
}

func (w *opsWalk) device(ctx context.Context, o *opsLayout, dev virt.Addr) {
	w.r.Err = nil
	name := func() string { return "network device " + w.r.CString(o.deviceName.At(dev), 16) }
	ops, header, ethtool, receive := w.r.Pointer(dev, o.deviceOp), w.r.Pointer(dev, o.headerOp), w.r.Pointer(dev, o.ethtoolOp), w.r.Pointer(dev, o.receive)
	if w.r.Err != nil {
		w.fail(fmt.Errorf("network device at %#x: %w", uint64(dev), w.r.Err))
		return
	}
	w.judge(&deviceOps, ops, name)
	w.judge(&headerOps, header, name)
	w.judge(&ethtoolOps, ethtool, name)
	w.deviceServed(o, dev, ops, header, ethtool, name)
	w.function(dev, receive, "rx_handler", name)
	if o.devicePackets.Present() {
		w.packets(ctx, o, o.devicePackets.At(dev))
	}
	if o.deviceSpecific.Present() {
		w.packets(ctx, o, o.deviceSpecific.At(dev))
	}
}

// devices judges what serves device files and disks.
func (w *opsWalk) devices(ctx context.Context, o *opsLayout) {
	for d, err := range device.Drivers(ctx, w.s.Linux) {
		if err != nil {
			w.fail(err)
			continue
		}
		name := func() string { return "the driver of " + d.Kind + " devices " + d.Name }
		w.judge(&fileOps, d.Ops, name)
		w.driven(&fileOps, d.Ops, d.Address, name)
	}
	for d, err := range device.Disks(ctx, w.s.Linux) {
		if err != nil {
			w.fail(err)
			continue
		}
		name := func() string { return "disk " + d.Name }
		w.judge(&blockOps, d.Ops, name)
		if o.diskQueue.Present() && o.queueOp.Present() {
			w.r.Err = nil
			if ops := w.r.Pointer(w.r.Pointer(d.Disk, o.diskQueue), o.queueOp); w.r.Err == nil && ops != 0 {
				w.judge(&queueOps, ops, name)
				w.driven(&queueOps, ops, d.Ops, name)
			}
		}
	}
}
