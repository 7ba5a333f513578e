package device

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Terminal is a tty that is in use (struct tty_struct).
type Terminal struct {
	Addr           virt.Addr
	Name           string // as below /dev; of the master side of a pseudo-terminal ptmN
	Driver         string // as in /proc/tty/drivers; empty where the driver has no name
	DriverModule   string // module of the driver; empty: built in
	Index          int
	Device         linux.Device
	Session, Group int32 // processes that lead the session and the foreground group; 0: none
	Count          int64 // how often it is open, as the kernel counts
	OpenBy         []int32
	Rows, Columns  int       // size of the window; 0 if not set
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
	list, driverName, module, major, minor, n    kobj.Field // of tty_driver
	ttys                                         kobj.Field
	driver, index, name, ops, ldisc, link, count kobj.Field // of tty_struct
	session, group, rows, cols                   kobj.Field
	write                                        kobj.Field // of tty_operations
	discOps, discName, receive, receive2         kobj.Field
	private                                      kobj.Field
	signal, controlling                          kobj.Field // of a task
}

func ttyLayoutOf(s *linux.System) (*ttyLayout, error) {
	return kobj.LayoutOf(s.Walker, "terminals", func(r *kobj.Resolver, o *ttyLayout) {
		r.Prefetch("tty_drivers")
		var err error
		if o.drivers, err = s.ListHead("tty_drivers"); err != nil {
			r.Errs = append(r.Errs, err)
		}
		const d, t, l = "tty_driver", "tty_struct", "tty_ldisc_ops"
		o.list, o.driverName, o.module = r.Field(d, "tty_drivers"), r.Field(d, "driver_name"), r.Field(d, "owner")
		o.major, o.minor, o.n, o.ttys = r.Field(d, "major"), r.Field(d, "minor_start"), r.Field(d, "num"), r.Field(d, "ttys")
		o.driver, o.index, o.name = r.Field(t, "driver"), r.Field(t, "index"), r.Field(t, "name")
		o.ops, o.ldisc, o.link, o.count = r.Field(t, "ops"), r.Field(t, "ldisc"), r.Field(t, "link"), r.Field(t, "count")
		o.session, o.group = r.Field(t, "ctrl.session", "session"), r.Field(t, "ctrl.pgrp", "pgrp") // 5.16
		o.rows, o.cols = r.Field(t, "winsize.ws_row"), r.Field(t, "winsize.ws_col")
		o.write = r.Field("tty_operations", "write")
		o.discOps, o.discName = r.Field("tty_ldisc", "ops"), r.Field(l, "name")
		o.receive, o.receive2 = r.Field(l, "receive_buf"), r.Field(l, "receive_buf2")
		o.private = r.Field("tty_file_private", "tty")
		o.signal, o.controlling = r.Field("task_struct", "signal"), r.Field("signal_struct", "tty")
	})
}

// ttyScan collects terminals and who has them open.
type ttyScan struct {
	s    *linux.System
	r    kobj.Reader
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
func Terminals(ctx context.Context, s *linux.System) iter.Seq2[*Terminal, error] {
	return func(yield func(*Terminal, error) bool) {
		o, err := ttyLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		c := &ttyScan{s: s, r: s.Reader(), o: o, open: map[virt.Addr][]int32{}}
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
	s := c.s
	const maxDrivers = 1 << 12
	for node, err := range s.List(ctx, c.o.drivers, maxDrivers) {
		a := node - virt.Addr(c.o.list.Offset)
		var table virt.Addr
		var n uint64
		if err == nil {
			r := s.Reader()
			table, n = r.Pointer(a, c.o.ttys), r.Uint(a, c.o.n)
			err = r.Err
		}
		if err == nil && table != 0 {
			if n > maxTerminals {
				c.fail(fmt.Errorf("terminals of the driver at %#x: %w: a table of %d", uint64(a), kobj.ErrBroken, n))
				n = maxTerminals
			}
			var ttys []virt.Addr
			ttys, err = s.Pointers(table, int(n))
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
	s, o, r := c.s, c.o, &c.r
	err := s.HeldObjects(ctx, []string{"tty_fops", "console_fops", "ptmx_fops"}, func(h linux.HeldObject) {
		if h.Object == 0 {
			return // being opened just now
		}
		r.Err = nil
		c.found(r.Pointer(h.Object, o.private), h.PID)
		if err := r.Err; err != nil {
			c.fail(fmt.Errorf("terminal of descriptor %s: %w", h.FileHolder, err))
		}
	}, c.fail)
	if err != nil {
		c.fail(err)
	}
	for t, err := range s.Processes(ctx) {
		if err == nil {
			r.Err = nil
			if signal := r.Pointer(t.Addr, o.signal); r.Err == nil {
				c.found(r.Pointer(signal, o.controlling), 0)
			}
			err = r.Err
		}
		if err != nil {
			c.fail(fmt.Errorf("terminals of task %#x: %w", uint64(t.Addr), err))
		}
	}
}

// TerminalAt is the terminal whose tty_struct is at a, without those who have it open.
func TerminalAt(s *linux.System, a virt.Addr) (*Terminal, error) {
	o, err := ttyLayoutOf(s)
	if err != nil {
		return nil, err
	}
	c := &ttyScan{s: s, r: s.Reader(), o: o}
	return c.terminal(a)
}

// terminal reads the tty_struct at a.
func (c *ttyScan) terminal(a virt.Addr) (t *Terminal, err error) {
	s, o, r := c.s, c.o, &c.r
	r.Err = nil
	t = &Terminal{Addr: a, Name: linux.TerminalName(r.CString(o.name.At(a), int(min(o.name.Size, 64)))), Index: int(int32(r.Uint(a, o.index)))}
	if driver := r.Pointer(a, o.driver); driver != 0 {
		if name := r.Pointer(driver, o.driverName); name != 0 {
			t.Driver = r.CString(name, 64)
		}
		t.DriverModule = s.ModuleNameAt(r, r.Pointer(driver, o.module))
		t.Device = linux.Device(r.Uint(driver, o.major)<<20 | (r.Uint(driver, o.minor)+uint64(t.Index))&0xf_ffff)
	}
	t.Session, t.Group = s.PIDNumber(r, r.Pointer(a, o.session)), s.PIDNumber(r, r.Pointer(a, o.group))
	t.Count, t.Rows, t.Columns = r.Int(a, o.count), int(r.Uint(a, o.rows)), int(r.Uint(a, o.cols))
	t.Peer, t.Ops = r.Pointer(a, o.link), r.Pointer(a, o.ops)
	if t.Ops != 0 {
		t.Write = r.Pointer(t.Ops, o.write)
	}
	if ldisc := r.Pointer(a, o.ldisc); ldisc != 0 {
		t.DisciplineOps = r.Pointer(ldisc, o.discOps)
	}
	if t.DisciplineOps != 0 {
		t.Discipline = r.CString(r.Pointer(t.DisciplineOps, o.discName), 64)
		t.Receive, t.Receive2 = r.Pointer(t.DisciplineOps, o.receive), r.Pointer(t.DisciplineOps, o.receive2)
	}
	if r.Err != nil {
		return nil, fmt.Errorf("terminal at %#x: %w", uint64(a), r.Err)
	}
	return t, nil
}
