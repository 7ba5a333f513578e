package device

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Driver is a range of device numbers, and who serves them.
type Driver struct {
	Kind  string // char, block, misc: one that shares major 10
	Major uint32
	First uint32    // minor number
	Count uint64    // of minor numbers
	Name  string    // as in /proc/devices, /proc/misc
	Ops   virt.Addr // its struct file_operations; 0 where none is known
	// Functions of it that carry the data; 0 where it has none.
	Open, Read, Write, Ioctl virt.Addr
	Address                  virt.Addr
}

type deviceLayout struct {
	next, major, first, count, name                  kobj.Field // char_device_struct
	probes, probeNext, probeDev, probeRange, data    kobj.Field
	ops                                              kobj.Field // cdev
	miscMinor, miscName, miscOps, miscList           kobj.Field
	blockNext, blockMajor, blockName                 kobj.Field
	open, read, readIter, write, writeIter, ioctlOps kobj.Field
}

func deviceLayoutOf(s *linux.System) (*deviceLayout, error) {
	return kobj.LayoutOf(s.Walker, "devices", func(r *kobj.Resolver, o *deviceLayout) {
		r.Prefetch("chrdevs", "cdev_map", "misc_list", "major_names", "exact_match")
		const c, f, m = "char_device_struct", "file_operations", "miscdevice"
		o.next, o.major, o.first, o.count, o.name = r.Field(c, "next"), r.Field(c, "major"), r.Field(c, "baseminor"), r.Field(c, "minorct"), r.Field(c, "name")
		o.ops = r.Field("cdev", "ops")
		if o.probes = r.Optional("kobj_map", "probes"); o.probes.Present() {
			const p = "probe"
			o.probeNext, o.probeDev, o.probeRange, o.data = r.Field(p, "next"), r.Field(p, "dev"), r.Field(p, "range"), r.Field(p, "data")
		}
		o.miscMinor, o.miscName, o.miscOps, o.miscList = r.Field(m, "minor"), r.Field(m, "name"), r.Field(m, "fops"), r.Field(m, "list")
		o.blockNext, o.blockMajor, o.blockName = r.Optional("blk_major_name", "next"), r.Optional("blk_major_name", "major"), r.Optional("blk_major_name", "name")
		o.open, o.read, o.write = r.Field(f, "open"), r.Field(f, "read"), r.Field(f, "write")
		o.readIter, o.writeIter, o.ioctlOps = r.Field(f, "read_iter"), r.Field(f, "write_iter"), r.Field(f, "unlocked_ioctl")
	})
}

const (
	deviceBuckets = 255 // CHRDEV_MAJOR_HASH_SIZE, and those of block devices and of cdev_map
	maxDevices    = 1 << 20
)

// Drivers yields the device numbers that are taken, with who serves them: character
// devices, those of major 10 (misc) one by one, and block devices.
func Drivers(ctx context.Context, s *linux.System) iter.Seq2[*Driver, error] {
	return func(yield func(*Driver, error) bool) {
		o, err := deviceLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		w := &deviceWalk{s: s, ctx: ctx, o: o, left: maxDevices, yield: yield}
		w.cdevs()
		_ = w.chars() && w.miscs() && w.blocks()
	}
}

type deviceWalk struct {
	s     *linux.System
	ctx   context.Context
	o     *deviceLayout
	left  int
	ops   map[uint64]virt.Addr // of struct cdev, by first device number
	yield func(*Driver, error) bool
}

// buckets calls f with every element of a table of singly linked lists; once with one that
// two lists share.
func (w *deviceWalk) buckets(table virt.Addr, next kobj.Field, f func(r *kobj.Reader, a virt.Addr) bool) bool {
	heads, err := w.s.Pointers(table, deviceBuckets)
	if err != nil {
		return w.yield(nil, err)
	}
	seen := map[virt.Addr]int{} // the list that it was in
	for list, a := range heads {
		for a != 0 {
			// All lists of cdev_map end with one and the same element (kobj_map_init).
			if in, known := seen[a]; known && in != list {
				break
			} else if known {
				if !w.yield(nil, fmt.Errorf("device numbers at %#x: %w: it is there twice", uint64(a), kobj.ErrBroken)) {
					return false
				}
				break
			}
			seen[a] = list
			if w.left--; w.left < 0 || w.ctx.Err() != nil {
				w.yield(nil, fmt.Errorf("devices: %w", kobj.ErrBudget))
				return false
			}
			r := w.s.Reader()
			more := f(&r, a)
			follow := r.Pointer(a, next)
			err := r.Err
			if err != nil && !w.yield(nil, fmt.Errorf("device numbers at %#x: %w", uint64(a), err)) || !more {
				return false
			}
			if err != nil {
				break
			}
			a = follow
		}
	}
	return true
}

// cdevs notes the functions of character devices.
func (w *deviceWalk) cdevs() {
	w.ops = map[uint64]virt.Addr{}
	o := w.o
	at0, err := w.s.Pointer("cdev_map")
	if err != nil || at0 == 0 || !o.probes.Present() {
		return
	}
	match, ok := w.s.Address("base_probe")
	w.buckets(o.probes.At(at0), o.probeNext, func(r *kobj.Reader, a virt.Addr) bool {
		dev, span, data := r.Uint(a, o.probeDev), r.Uint(a, o.probeRange), r.Pointer(a, o.data)
		// What covers all numbers asks for a module to be loaded (base_probe).
		if r.Err != nil || data == 0 || ok && data == match || span >= 1<<31 {
			return true
		}
		if ops := r.Pointer(data, o.ops); r.Err == nil {
			w.ops[dev] = ops
		}
		return true
	})
}

func (w *deviceWalk) chars() bool {
	o := w.o
	table, err := w.s.SymbolAddr("chrdevs")
	if err != nil {
		return w.yield(nil, fmt.Errorf("character devices: %w", err))
	}
	return w.buckets(table, o.next, func(r *kobj.Reader, a virt.Addr) bool {
		d := &Driver{Kind: "char", Address: a, Major: uint32(r.Uint(a, o.major)), First: uint32(r.Uint(a, o.first)), Count: r.Uint(a, o.count)}
		d.Name = kobj.CString(r.Bytes(o.name.At(a), int(min(o.name.Size, 256))))
		if d.Ops = w.ops[uint64(d.Major)<<20|uint64(d.First)]; d.Ops != 0 {
			w.functions(r, d)
		}
		return r.Err != nil || w.yield(d, nil)
	})
}

func (w *deviceWalk) miscs() bool {
	o := w.o
	head, err := w.s.ListHead("misc_list")
	if err != nil {
		return true // a kernel without any
	}
	for node, err := range w.s.List(w.ctx, head, maxDevices) {
		var d *Driver
		if err == nil {
			a := node - virt.Addr(o.miscList.Offset)
			d = &Driver{Kind: "misc", Major: 10, Count: 1, Address: a}
			r := w.s.Reader()
			d.First, d.Ops = uint32(r.Uint(a, o.miscMinor)), r.Pointer(a, o.miscOps)
			if name := r.Pointer(a, o.miscName); name != 0 {
				d.Name = r.CString(name, linux.MaxName)
			}
			w.functions(&r, d)
			err = r.Err
		}
		if err != nil {
			d, err = nil, fmt.Errorf("misc devices: %w", err)
		}
		if !w.yield(d, err) {
			return false
		}
	}
	return true
}

func (w *deviceWalk) blocks() bool {
	o := w.o
	table, err := w.s.SymbolAddr("major_names")
	if err != nil || !o.blockNext.Present() {
		return true // built without CONFIG_BLOCK
	}
	return w.buckets(table, o.blockNext, func(r *kobj.Reader, a virt.Addr) bool {
		d := &Driver{Kind: "block", Address: a, Major: uint32(r.Uint(a, o.blockMajor))}
		d.Name = kobj.CString(r.Bytes(o.blockName.At(a), int(min(o.blockName.Size, 256))))
		return r.Err != nil || w.yield(d, nil)
	})
}

// functions reads those of d's operations that carry data.
func (w *deviceWalk) functions(r *kobj.Reader, d *Driver) {
	if d.Ops == 0 {
		return
	}
	either := func(a, b kobj.Field) virt.Addr {
		if f := r.Pointer(d.Ops, a); f != 0 {
			return f
		}
		return r.Pointer(d.Ops, b)
	}
	d.Open, d.Ioctl = r.Pointer(d.Ops, w.o.open), r.Pointer(d.Ops, w.o.ioctlOps)
	d.Read, d.Write = either(w.o.read, w.o.readIter), either(w.o.write, w.o.writeIter)
}
