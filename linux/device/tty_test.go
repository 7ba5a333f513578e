package device

import (
	"reflect"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// ttyGuest has a serial line, which its driver knows, and a pseudo-terminal, of which
// process 7 holds the master and process 8 the slave.
func ttyGuest(t *testing.T, old bool) (g *synth.Guest, serial, master, slave uint64) {
	t.Helper()
	g = synth.New(synth.Options{Old: old})
	const tty = "tty_struct"
	discipline := g.Object("tty_ldisc_ops")
	g.Set(discipline, "tty_ldisc_ops", "name", g.CString("n_tty"))
	g.Set(discipline, "tty_ldisc_ops", "receive_buf", g.Text+0x100)
	g.Set(discipline, "tty_ldisc_ops", "receive_buf2", 0xffff_ffff_c000_1000)
	ldisc := g.Object("tty_ldisc")
	g.Set(ldisc, "tty_ldisc", "ops", discipline)
	driver := func(name string, major uint64) uint64 {
		d := g.Object("tty_driver")
		g.Set(d, "tty_driver", "driver_name", g.CString(name))
		g.Set(d, "tty_driver", "major", major)
		g.Set(d, "tty_driver", "minor_start", 64)
		g.ListAdd(g.Address("tty_drivers"), d+g.Member("tty_driver", "tty_drivers"))
		return d
	}
	terminal := func(driver, index uint64, name string) uint64 {
		a := g.Object(tty)
		g.Set(a, tty, "driver", driver)
		g.Set(a, tty, "index", index)
		g.Set(a, tty, "ldisc", ldisc)
		g.Set(a, tty, "count", 1)
		g.Put(a+g.Member(tty, "name"), append([]byte(name), 0))
		return a
	}
	uart := driver("serial", 4)
	serial = terminal(uart, 1, "ttyS1")
	table := g.Alloc(32, 8)
	g.Put64(table+8, serial)
	g.Set(uart, "tty_driver", "ttys", table)
	g.Set(uart, "tty_driver", "num", 4)
	pts, ptm := driver("pty_slave", 136), driver("pty_master", 128)
	master, slave = terminal(ptm, 3, "ptm3"), terminal(pts, 3, "pts3")
	g.Set(master, tty, "link", slave)
	g.Set(slave, tty, "link", master)
	g.Set(slave, tty, "winsize.ws_row", 24)
	g.Set(slave, tty, "winsize.ws_col", 80)
	holder, shell := g.Add(synth.Process{PID: 7, Comm: "holder"}), g.Add(synth.Process{PID: 8, Comm: "sh"})
	session, group := "ctrl.session", "ctrl.pgrp"
	if old {
		session, group = "session", "pgrp"
	}
	g.Set(slave, tty, session, g.Get(shell, "task_struct", "thread_pid"))
	g.Set(slave, tty, group, g.Get(holder, "task_struct", "thread_pid"))
	g.Set(g.Get(shell, "task_struct", "signal"), "signal_struct", "tty", slave)
	file := func(tty, ops uint64) uint64 {
		private, f := g.Object("tty_file_private"), g.File("/dev/tty")
		g.Set(private, "tty_file_private", "tty", tty)
		g.Set(f, "file", "f_op", ops)
		g.Set(f, "file", "private_data", private)
		return f
	}
	fops := g.Address("tty_fops")
	g.Open(holder, 0, file(master, fops), file(serial, 0x1234), file(master, fops))
	g.Open(shell, file(slave, fops))
	return g, serial, master, slave
}

func terminals(t *testing.T, g *synth.Guest) (all []Terminal, errs []error) {
	t.Helper()
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for tty, err := range Terminals(t.Context(), s) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, *tty)
	}
	return all, errs
}

func TestTerminals(t *testing.T) {
	for _, old := range []bool{false, true} {
		g, serial, master, slave := ttyGuest(t, old)
		got, errs := terminals(t, g)
		if len(errs) > 0 || len(got) != 3 {
			t.Fatalf("old %v: %+v, %v", old, got, errs)
		}
		for i := range got {
			if got[i].Discipline != "n_tty" || got[i].Receive != virt.Addr(g.Text+0x100) || got[i].Receive2 != 0xffff_ffff_c000_1000 {
				t.Errorf("old %v: %+v", old, got[i])
			}
			got[i].DisciplineOps, got[i].Discipline, got[i].Receive, got[i].Receive2 = 0, "", 0, 0
		}
		want := []Terminal{
			{Addr: virt.Addr(serial), Name: "ttyS1", Driver: "serial", Index: 1, Device: 4<<20 | 65, Count: 1},
			{Addr: virt.Addr(master), Name: "ptm3", Driver: "pty_master", Index: 3, Device: 128<<20 | 67, Count: 1, OpenBy: []int32{7}, Peer: virt.Addr(slave)},
			{
				Addr: virt.Addr(slave), Name: "pts/3", Driver: "pty_slave", Index: 3, Device: 136<<20 | 67, Count: 1, OpenBy: []int32{8},
				Peer: virt.Addr(master), Session: 8, Group: 7, Rows: 24, Columns: 80,
			},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("old %v:\n%+v, not\n%+v", old, got, want)
		}
	}
}

// What is wrong with one terminal, or with a driver, is told beside the others.
func TestTerminalsHostile(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(g *synth.Guest, serial, master, slave uint64)
		left   int
	}{
		"a peer that is nowhere": {func(g *synth.Guest, _, master, slave uint64) { g.Set(slave, "tty_struct", "link", 0x4141_4141) }, 3},
		"a huge driver": {func(g *synth.Guest, serial, _, _ uint64) {
			g.Set(g.Get(serial, "tty_struct", "driver"), "tty_driver", "num", 0xffff_ffff)
		}, 3},
		"a broken list": {func(g *synth.Guest, _, _, _ uint64) { g.Put64(g.Address("tty_drivers"), 8) }, 3},
		"a bad table": {func(g *synth.Guest, serial, _, _ uint64) {
			g.Set(g.Get(serial, "tty_struct", "driver"), "tty_driver", "ttys", 0x1000)
		}, 2},
	} {
		g, serial, master, slave := ttyGuest(t, false)
		c.damage(g, serial, master, slave)
		if got, errs := terminals(t, g); len(got) < c.left || len(errs) == 0 {
			t.Errorf("%s: %d terminals, %v", name, len(got), errs)
		}
	}
}
