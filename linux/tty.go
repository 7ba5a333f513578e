package linux

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"slices"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

// Terminal is a tty that is in use (struct tty_struct).
type Terminal struct {
	Addr           virt.Addr
	Name           string // as below /dev; of the master side of a pseudo-terminal ptmN
	Driver         string // as in /proc/tty/drivers; empty where the driver has no name
	DriverModule   string // module of the driver; empty: built in
	Index          int
	Device         Device
	Session, Group int32 // processes that lead the session and the foreground group; 0: none
	Count          int64 // how often it is open, as the kernel counts
	OpenBy         []int32
	Rows, Columns  int       // size of the window; 0 if nobody set it
	Peer           virt.Addr // the other side of a pseudo-terminal; 0: none
	Ops            virt.Addr // struct tty_operations
	Write          virt.Addr // its function
	Discipline     string    // line discipline
	DisciplineOps  virt.Addr // struct tty_ldisc_ops; 0: none at the moment
	// Receive and Receive2 are the functions that every byte typed goes through: the
	// second, where there is one, instead of the first.
	Receive, Receive2 virt.Addr
}

type ttyLayout struct {
	drivers                                      virt.Addr
	fileOps                                      []virt.Addr
	list, driverName, module, major, minor, n    kernel.Field // of tty_driver
	ttys                                         kernel.Field
	driver, index, name, ops, ldisc, link, count kernel.Field // of tty_struct
	session, group, rows, cols                   kernel.Field
	write                                        kernel.Field // of tty_operations
	discOps, discName, receive, receive2         kernel.Field
	private, fileOp, privateData                 kernel.Field
}

func (s *System) ttyLayout() (*ttyLayout, error) {
	return layoutOf(s, "terminals", func(r *resolver, o *ttyLayout) {
		r.symbols("tty_drivers", "tty_fops", "console_fops", "ptmx_fops")
		var err error
		if o.drivers, err = s.symbol("tty_drivers"); err != nil {
			r.errs = append(r.errs, err)
		}
		for _, name := range []string{"tty_fops", "console_fops", "ptmx_fops"} {
			if a, ok := s.Address(name); ok {
				o.fileOps = append(o.fileOps, a)
			}
		}
		const d, t, l = "tty_driver", "tty_struct", "tty_ldisc_ops"
		o.list, o.driverName, o.module = r.field(d, "tty_drivers"), r.field(d, "driver_name"), r.field(d, "owner")
		o.major, o.minor, o.n, o.ttys = r.field(d, "major"), r.field(d, "minor_start"), r.field(d, "num"), r.field(d, "ttys")
		o.driver, o.index, o.name = r.field(t, "driver"), r.field(t, "index"), r.field(t, "name")
		o.ops, o.ldisc, o.link, o.count = r.field(t, "ops"), r.field(t, "ldisc"), r.field(t, "link"), r.field(t, "count")
		o.session, o.group = r.field(t, "ctrl.session", "session"), r.field(t, "ctrl.pgrp", "pgrp") // 5.16
		o.rows, o.cols = r.field(t, "winsize.ws_row"), r.field(t, "winsize.ws_col")
		o.write = r.field("tty_operations", "write")
		o.discOps, o.discName = r.field("tty_ldisc", "ops"), r.field(l, "name")
		o.receive, o.receive2 = r.field(l, "receive_buf"), r.field(l, "receive_buf2")
		o.private = r.field("tty_file_private", "tty")
		o.fileOp, o.privateData = r.field("file", "f_op"), r.field("file", "private_data")
	})
}

// ttyScan collects terminals and who has them open.
type ttyScan struct {
	l    *Lister
	o    *ttyLayout
	open map[virt.Addr][]int32
	errs []error
}

// maxTerminals bounds the terminals of a guest: kernel.pty.max is 4096 by default.
const maxTerminals = 1 << 16

// Terminals yields the terminals that are in use, by device number: those that their
// drivers know, those that a process has open or is controlled by, and the other sides of
// both. Pseudo-terminals are in no table of their driver's: one that no process has
// anything to do with is not found.
func (s *System) Terminals(ctx context.Context) iter.Seq2[*Terminal, error] {
	return func(yield func(*Terminal, error) bool) {
		o, err := s.ttyLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		c := &ttyScan{l: s.NewLister(), o: o, open: map[virt.Addr][]int32{}}
		c.drivers(ctx)
		c.processes(ctx)
		var all []*Terminal
		read := map[virt.Addr]bool{}
		todo := make([]virt.Addr, 0, len(c.open))
		for a := range c.open {
			todo = append(todo, a)
		}
		slices.Sort(todo)
		for len(todo) > 0 && len(all) < maxTerminals && ctx.Err() == nil {
			a := todo[0]
			todo = todo[1:]
			if a == 0 || read[a] {
				continue
			}
			read[a] = true
			t, err := c.terminal(a)
			if err != nil {
				c.errs = append(c.errs, err)
				continue
			}
			t.OpenBy = slices.Compact(slices.Sorted(slices.Values(c.open[a])))
			all = append(all, t)
			todo = append(todo, t.Peer)
		}
		slices.SortFunc(all, func(a, b *Terminal) int { return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Addr, b.Addr)) })
		for _, t := range all {
			if !yield(t, nil) {
				return
			}
		}
		if ctx.Err() != nil {
			c.errs = append(c.errs, ctx.Err())
		}
		for _, err := range c.errs {
			if !yield(nil, err) {
				return
			}
		}
	}
}

// found notes a terminal, and that process pid has it open unless that is 0.
func (c *ttyScan) found(a virt.Addr, pid int32) {
	if a == 0 || len(c.open) >= maxTerminals {
		return
	}
	if pid == 0 {
		c.open[a] = c.open[a][:len(c.open[a]):len(c.open[a])]
	} else {
		c.open[a] = append(c.open[a], pid)
	}
}

func (c *ttyScan) fail(err error) {
	const maxErrors = 1 << 10
	if len(c.errs) < maxErrors {
		c.errs = append(c.errs, err)
	}
}

// drivers finds the terminals in the drivers' tables.
func (c *ttyScan) drivers(ctx context.Context) {
	s := c.l.s
	const maxDrivers = 1 << 12
	for node, err := range s.list(ctx, c.o.drivers, maxDrivers) {
		a := node - virt.Addr(c.o.list.Offset)
		var table virt.Addr
		var n uint64
		if err == nil {
			err = safely(func() error {
				r := s.reader()
				table, n = r.pointer(a, c.o.ttys), r.num(a, c.o.n)
				return r.err
			})
		}
		if err == nil && table != 0 {
			if n > maxTerminals {
				c.fail(fmt.Errorf("terminals of the driver at %#x: %w: a table of %d", uint64(a), ErrBroken, n))
				n = maxTerminals
			}
			var ttys []virt.Addr
			ttys, err = s.pointers(table, int(n))
			for _, tty := range ttys {
				c.found(tty, 0)
			}
		}
		if err != nil {
			c.fail(fmt.Errorf("terminals: driver at %#x: %w", uint64(a), err))
		}
	}
}

// processes finds the terminals that processes have open or are controlled by.
func (c *ttyScan) processes(ctx context.Context) {
	s := c.l.s
	files, err := s.filesLayout()
	if err != nil {
		c.fail(err)
		return
	}
	for t, err := range s.Processes(ctx) {
		if err != nil {
			c.fail(err)
			continue
		}
		err = safely(func() error {
			r := &c.l.r
			r.err = nil
			pid := int32(r.u32(t.Addr + virt.Addr(s.o.tgid)))
			signal := r.ptr(t.Addr + virt.Addr(s.o.signal))
			if r.err == nil {
				c.found(r.ptr(signal+virt.Addr(s.o.tty)), 0)
			}
			return c.files(ctx, t, pid, files)
		})
		if err != nil {
			c.fail(fmt.Errorf("terminals of task %#x: %w", uint64(t.Addr), err))
		}
	}
}

// files finds the terminals that a process has open.
func (c *ttyScan) files(ctx context.Context, t Task, pid int32, o *filesLayout) error {
	table, err := c.l.fdTable(t, o)
	if err != nil {
		return err
	}
	r := &c.l.r
	for base := 0; base < table.max && ctx.Err() == nil; base += 8 * len(table.open) {
		if err := c.l.fdBits(table, base); err != nil {
			return err
		}
		for i := 0; i < len(table.open); i += 8 {
			for word := binary.LittleEndian.Uint64(table.open[i:]); word != 0; word &= word - 1 {
				fd := base + 8*i + bits.TrailingZeros64(word)
				if fd >= table.max {
					break
				}
				file := r.ptr(table.fds + virt.Addr(8*fd))
				if file == 0 || r.err != nil || !slices.Contains(c.o.fileOps, r.pointer(file, c.o.fileOp)) {
					if r.err != nil {
						return r.err
					}
					continue
				}
				if private := r.pointer(file, c.o.privateData); private != 0 {
					c.found(r.pointer(private, c.o.private), pid)
				}
			}
		}
	}
	return r.err
}

// terminal reads the tty_struct at a.
func (c *ttyScan) terminal(a virt.Addr) (t *Terminal, err error) {
	s, o := c.l.s, c.o
	err = safely(func() error {
		r := &c.l.r
		r.err = nil
		t = &Terminal{Addr: a, Name: devName(r.cString(at(a, o.name), int(min(o.name.Size, 64)))), Index: int(int32(r.num(a, o.index)))}
		if driver := r.pointer(a, o.driver); driver != 0 {
			if name := r.pointer(driver, o.driverName); name != 0 {
				t.Driver = r.cString(name, 64)
			}
			t.DriverModule = s.moduleNameAt(r, r.pointer(driver, o.module))
			t.Device = Device(r.num(driver, o.major)<<20 | (r.num(driver, o.minor)+uint64(t.Index))&0xf_ffff)
		}
		id := func(f kernel.Field) int32 {
			pid := r.pointer(a, f)
			if pid == 0 {
				return 0
			}
			return int32(r.u32(pid + virt.Addr(s.o.pidNumbers+s.o.upidNr)))
		}
		t.Session, t.Group = id(o.session), id(o.group)
		t.Count, t.Rows, t.Columns = r.signed(a, o.count), int(r.num(a, o.rows)), int(r.num(a, o.cols))
		t.Peer, t.Ops = r.pointer(a, o.link), r.pointer(a, o.ops)
		if t.Ops != 0 {
			t.Write = r.pointer(t.Ops, o.write)
		}
		if ldisc := r.pointer(a, o.ldisc); ldisc != 0 {
			t.DisciplineOps = r.pointer(ldisc, o.discOps)
		}
		if t.DisciplineOps != 0 {
			t.Discipline = r.cString(r.pointer(t.DisciplineOps, o.discName), 64)
			t.Receive, t.Receive2 = r.pointer(t.DisciplineOps, o.receive), r.pointer(t.DisciplineOps, o.receive2)
		}
		if r.err != nil {
			return fmt.Errorf("terminal at %#x: %w", uint64(a), r.err)
		}
		return nil
	})
	return t, err
}

// devName is a terminal's name below /dev: the slaves of Unix98 pseudo-terminals live in
// a folder, so that pts0 is pts/0.
func devName(name string) string {
	if len(name) > 3 && name[:3] == "pts" {
		return "pts/" + name[3:]
	}
	return name
}
