// Package ipc is the System V IPC objects and POSIX message queues of a Linux guest.
package ipc

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Object is a means of communication between processes that outlives them: a System
// V shared memory segment, semaphore set or message queue, or a POSIX message queue.
type Object struct {
	Namespace      uint64 // inode of its IPC namespace
	Kind           string // shm, sem, msg, mqueue
	ID             int32  // -1: of a POSIX queue
	Key            int32
	Name           string // of a POSIX queue
	Mode           uint32 // permissions; of shared memory also SHM_DEST (01000) and SHM_LOCKED (02000)
	UID, GID       uint32
	CUID, CGID     uint32 // of its creator
	Size           uint64 // bytes of shared memory, or in the queue
	Count          uint64 // processes attached, semaphores, messages
	Limit          uint64 // of bytes, or of messages, in a queue
	Creator, Last  int32  // of shared memory; who sent last
	Receiver       int32  // who received last
	Attached, Sent time.Time
	Detached       time.Time // of a queue: received
	Changed        time.Time
	Address        virt.Addr
}

type layout struct {
	ids, tree                                   kobj.Field
	idsStride                                   uint32
	id, key, uid, gid, cuid, cgid, mode         kobj.Field
	shm                                         struct{ perm, attached, size, atime, dtime, ctime, creator, last kobj.Field }
	sem                                         struct{ perm, ctime, count kobj.Field }
	msg                                         struct{ perm, stime, rtime, ctime, bytes, count, limit, sender, receiver kobj.Field }
	mount, super                                kobj.Field
	queue, queueMax, queueCurrent, queueMsgSize kobj.Field
	queueBytes                                  kobj.Field
}

func layoutOf(s *linux.System) (*layout, error) {
	return kobj.LayoutOf(s.Walker, "communication between processes", func(r *kobj.Resolver, o *layout) {
		o.ids, o.idsStride, o.tree = r.Field("ipc_namespace", "ids"), r.Size("ipc_ids"), r.Field("ipc_ids", "ipcs_idr.idr_rt")
		const p = "kern_ipc_perm"
		o.id, o.key, o.mode = r.Field(p, "id"), r.Field(p, "key"), r.Field(p, "mode")
		o.uid, o.gid, o.cuid, o.cgid = r.Field(p, "uid"), r.Field(p, "gid"), r.Field(p, "cuid"), r.Field(p, "cgid")
		f := func(structure string, fields map[string]*kobj.Field) {
			for name, at := range fields {
				*at = r.Field(structure, name)
			}
		}
		f("shmid_kernel", map[string]*kobj.Field{
			"shm_perm": &o.shm.perm, "shm_nattch": &o.shm.attached, "shm_segsz": &o.shm.size, "shm_atim": &o.shm.atime,
			"shm_dtim": &o.shm.dtime, "shm_ctim": &o.shm.ctime, "shm_cprid": &o.shm.creator, "shm_lprid": &o.shm.last,
		})
		f("sem_array", map[string]*kobj.Field{"sem_perm": &o.sem.perm, "sem_ctime": &o.sem.ctime, "sem_nsems": &o.sem.count})
		f("msg_queue", map[string]*kobj.Field{
			"q_perm": &o.msg.perm, "q_stime": &o.msg.stime, "q_rtime": &o.msg.rtime, "q_ctime": &o.msg.ctime, "q_cbytes": &o.msg.bytes,
			"q_qnum": &o.msg.count, "q_qbytes": &o.msg.limit, "q_lspid": &o.msg.sender, "q_lrpid": &o.msg.receiver,
		})
		o.mount, o.super = r.Optional("ipc_namespace", "mq_mnt"), r.Field("vfsmount", "mnt_sb")
		const q = "mqueue_inode_info"
		o.queue, o.queueBytes = r.Optional(q, "vfs_inode"), r.Optional(q, "qsize") // with CONFIG_POSIX_MQUEUE
		o.queueMax, o.queueCurrent, o.queueMsgSize = r.Optional(q, "attr.mq_maxmsg"), r.Optional(q, "attr.mq_curmsgs"), r.Optional(q, "attr.mq_msgsize")
	})
}

// maxObjects bounds the objects of one kind in one namespace: IPCMNI_EXTEND.
const maxObjects = 1 << 24

// Objects yields the objects of every IPC namespace that is known; see
// [linux.System.Namespaces].
func Objects(ctx context.Context, s *linux.System) iter.Seq2[*Object, error] {
	return func(yield func(*Object, error) bool) {
		o, err := layoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		for ns, err := range s.Namespaces(ctx) {
			if ns == nil || ns.Kind != "ipc" {
				if ctx.Err() != nil && !yield(nil, ctx.Err()) {
					return
				}
				continue // what is wrong with others is told where they are shown
			}
			if err != nil && !yield(nil, err) {
				return
			}
			for i, kind := range []string{"sem", "msg", "shm"} { // IPC_SEM_IDS, IPC_MSG_IDS, IPC_SHM_IDS
				ids := o.ids.At(ns.Addr) + virt.Addr(i)*virt.Addr(o.idsStride)
				for e, err := range s.XArray(ctx, o.tree.At(ids), maxObjects) {
					var v *Object
					if err == nil {
						v, err = o.read(s, kind, e.Value)
					}
					if err != nil {
						err = fmt.Errorf("%s of IPC namespace %d: %w", kind, ns.Inode, err)
					} else {
						v.Namespace = ns.Inode
					}
					if !yield(v, err) {
						return
					}
				}
			}
			if !o.queues(ctx, s, ns, yield) {
				return
			}
		}
	}
}

func (o *layout) read(s *linux.System, kind string, perm virt.Addr) (*Object, error) {
	v := &Object{Kind: kind}
	r := s.Reader()
	v.ID, v.Key, v.Mode = int32(r.Uint(perm, o.id)), int32(r.Uint(perm, o.key)), uint32(r.Uint(perm, o.mode))
	v.UID, v.GID, v.CUID, v.CGID = uint32(r.Uint(perm, o.uid)), uint32(r.Uint(perm, o.gid)), uint32(r.Uint(perm, o.cuid)), uint32(r.Uint(perm, o.cgid))
	base := func(f kobj.Field) virt.Addr {
		v.Address = perm - virt.Addr(f.Offset)
		return v.Address
	}
	pid := func(a virt.Addr, f kobj.Field) int32 { return s.PIDNumber(&r, r.Pointer(a, f)) }
	switch kind {
	case "shm":
		a := base(o.shm.perm)
		v.Size, v.Count = r.Uint(a, o.shm.size), r.Uint(a, o.shm.attached)
		v.Attached, v.Detached, v.Changed = stamp(r.Uint(a, o.shm.atime)), stamp(r.Uint(a, o.shm.dtime)), stamp(r.Uint(a, o.shm.ctime))
		v.Creator, v.Last = pid(a, o.shm.creator), pid(a, o.shm.last)
	case "sem":
		a := base(o.sem.perm)
		v.Count, v.Changed = r.Uint(a, o.sem.count), stamp(r.Uint(a, o.sem.ctime))
	case "msg":
		a := base(o.msg.perm)
		v.Size, v.Count, v.Limit = r.Uint(a, o.msg.bytes), r.Uint(a, o.msg.count), r.Uint(a, o.msg.limit)
		v.Sent, v.Detached, v.Changed = stamp(r.Uint(a, o.msg.stime)), stamp(r.Uint(a, o.msg.rtime)), stamp(r.Uint(a, o.msg.ctime))
		v.Last, v.Receiver = pid(a, o.msg.sender), pid(a, o.msg.receiver)
	}
	if err := r.Err; err != nil {
		return nil, fmt.Errorf("at %#x: %w", uint64(perm), err)
	}
	return v, nil
}

// stamp is a time in seconds since 1970; 0 stands for never.
func stamp(seconds uint64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}

// queues yields the POSIX message queues of a namespace: the files of a file system that
// the kernel has mounted for it.
func (o *layout) queues(ctx context.Context, s *linux.System, ns *linux.NamespaceInfo, yield func(*Object, error) bool) bool {
	if !o.mount.Present() || !o.queue.Present() {
		return true
	}
	fail := func(err error) bool {
		return yield(nil, fmt.Errorf("message queues of IPC namespace %d: %w", ns.Inode, err))
	}
	io, err := s.InodesLayout()
	if err != nil {
		return fail(err)
	}
	r := s.Reader()
	mount := r.Pointer(ns.Addr, o.mount)
	if mount == 0 && r.Err == nil {
		return true // it has none
	}
	super := r.Pointer(mount, o.super)
	if r.Err != nil {
		return fail(r.Err)
	}
	sb, err := s.SuperBlock(super, io)
	if err != nil {
		return fail(err)
	}
	names := s.NewProcessReader()
	for i, err := range s.INodes(ctx, sb) {
		if err != nil {
			if !fail(err) {
				return false
			}
			continue
		}
		const typeMask, regular = 0o170000, 0o100000
		if i.Mode&typeMask != regular {
			continue // the directory itself
		}
		v := &Object{
			Namespace: ns.Inode, Kind: "mqueue", ID: -1, Mode: i.Mode &^ typeMask, UID: i.UID, GID: i.GID, CUID: i.UID, CGID: i.GID,
			Changed: i.CTime, Address: i.Addr - virt.Addr(o.queue.Offset),
		}
		r.Err = nil
		v.Size, v.Count, v.Limit = r.Uint(v.Address, o.queueBytes), r.Uint(v.Address, o.queueCurrent), r.Uint(v.Address, o.queueMax)
		var err error
		if i.Dentry != 0 {
			v.Name, err = names.DentryName(i.Dentry)
		}
		if err := cmp.Or(r.Err, err); err != nil {
			if !fail(err) {
				return false
			}
			continue
		}
		if !yield(v, nil) {
			return false
		}
	}
	return true
}
