package planted

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// testLayout is a kernel of the test's.
var testLayout = &layout{
	pid: 0x10, tgid: 0x14, started: 0x18, comm: 0x20, flags: 0x30, status: 0x34, parent: 0x38, cred: 0x40, mm: 0x48, signal: 0x50, exitCode: 0x58, fs: 0x60,
	voluntary: 0x68, involuntary: 0x70, uid: 4, signalFlags: 8, groupExit: 12, live: 16, argStart: 8, argEnd: 16, execName: 8, file: 16,
	fileMnt: 8, fileDentry: 16, rootMnt: 8, inode: 8, above: 16, super: 24, length: 32, inline: 40, inlineSize: 32, links: 8, moduleSize: 56, moduleName: 24, taints: 96,
}

const (
	testTask = kernelMin + 0x1000
	testRegs = kernelMin + 0x2000
)

// testCalls compiles the programs of system calls.
func testCalls(t *testing.T, names []string) (enter, leave *writer) {
	t.Helper()
	calls, err := tcg.KnownCalls(names, 32)
	if err != nil {
		t.Fatal(err)
	}
	c := callCompiler{o: testLayout, calls: calls, area: minArea}
	if enter, err = c.program(true); err == nil {
		leave, err = c.program(false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return enter, leave
}

func (m *machine) process() {
	task := make([]byte, 0x80)
	le.PutUint32(task[0x10:], 42)
	le.PutUint32(task[0x14:], 41)
	le.PutUint64(task[0x18:], 7777)
	copy(task[0x20:], "worker")
	m.kernel[testTask], m.task, m.ids = task, testTask, 41<<32|42
}

// registers sets those of a 64-bit call.
func (m *machine) registers(number uint64, args ...uint64) {
	b := make([]byte, 168)
	le.PutUint64(b[regNr:], number)
	for i, a := range args {
		le.PutUint64(b[saved64[i]:], a)
		le.PutUint64(b[saved32[i]:], a) // the same, where they do not overlap
	}
	for i, a := range args {
		le.PutUint64(b[saved64[i]:], a)
	}
	m.kernel[testRegs] = b
}

// TestCallPrograms runs the programs of system calls: what of their arguments is fetched, and what of it cannot be read.
func TestCallPrograms(t *testing.T) {
	const unlink, execve, connect, writev, bpf = 87, 59, 42, 20, 321
	enter, leave := testCalls(t, []string{"unlink", "execve", "connect", "writev", "sysinfo"})
	m := newMachine(t, 1)
	m.process()
	r, err := newReader(m.ring, m.ring.shape)
	if err != nil {
		t.Fatal(err)
	}
	text := append([]byte("/tmp/file\x00"), bytes.Repeat([]byte("x"), 5000)...)
	m.user[0x400000] = text
	page := make([]byte, 0x1000)
	m.user[0x7000] = page
	copy(page[0xff8:], "end of p") // the page behind is not there
	for i, p := range []uint64{0x400000, 0x400005, 0x40000a, 0x999999, 0} {
		le.PutUint64(page[8*i:], p)
	}
	copy(page[0x100:], []byte{2, 0, 0, 80, 127, 0, 0, 1})
	for i, v := range []uint64{0x400000, 4, 0x400005, 20, 0x999999, 4} {
		le.PutUint64(page[0x200+8*i:], v)
	}
	for _, c := range []struct {
		name    string
		number  uint64
		args    []uint64
		entry   string
		result  int64
		back    string
		records int
	}{
		{"path", unlink, []uint64{0x400000}, `[0:"/tmp/file":0]`, 0, `[]`, 2},
		{"a path that is not there, and is when it returns", unlink, []uint64{0x888888}, `[0:"":2]`, -2, `[0:"late":0]`, 2},
		{"empty path", unlink, []uint64{0x400009}, `[0:"":0]`, -2, `[]`, 2},
		{"no path", unlink, []uint64{0}, `[]`, -14, `[]`, 2},
		{"vector of strings", execve, []uint64{0x400000, 0x7000, 0}, `[0:"/tmp/file":0 1:"/tmp/file":0 1:"file":0 1:"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx":1 1:"":2]`, -2, `[]`, 2},
		{"bytes", connect, []uint64{3, 0x7100, 8}, `[0:"\x02\x00\x00P\x7f\x00\x00\x01":0]`, -111, `[]`, 2},
		{"bytes beyond the last page", connect, []uint64{3, 0x7ff8, 16}, `[0:"end of p":2]`, 0, `[0:"end of p":2]`, 2},
		{"buffers", writev, []uint64{1, 0x7200, 2}, ` 1:"/tmpfile\x00xxxxxxxxxxxxxxx":0]`, 0, `[]`, 2},
		{"buffers of which one is not there", writev, []uint64{1, 0x7210, 2}, ` 1:"file\x00xxxxxxxxxxxxxxx":2]`, 0, ` 1:"file\x00xxxxxxxxxxxxxxx":2]`, 2},
		{"not wanted", bpf, []uint64{0, 0x7000, 8}, ``, 0, ``, 0},
		{"not wanted in the other ABI", unlink, []uint64{0x400000}, ``, 0, ``, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.t = t
			m.registers(c.number, c.args...)
			status := uint32(0)
			if strings.Contains(c.name, "other ABI") {
				status = compatStatus
			}
			le.PutUint32(m.kernel[testTask][testLayout.status:], status)
			m.run(enter, testRegs, c.number)
			if strings.Contains(c.back, "late") {
				m.user[0x888888] = []byte("late\x00")
			}
			m.run(leave, testRegs, uint64(c.result))
			delete(m.user, 0x888888)
			all, items := m.records(r)
			if len(all) != c.records {
				t.Fatalf("%d records, not %d", len(all), c.records)
			}
			if c.records == 0 {
				return
			}
			if all[0].Probe != tcg.EntryID || all[1].Probe != tcg.ReturnID || all[0].Words() != tcg.CallWords+6 || all[1].Words() != tcg.CallWords {
				t.Errorf("records %d of %d words, %d of %d", all[0].Probe, all[0].Words(), all[1].Probe, all[1].Words())
			}
			for i, want := range []uint64{testTask, 41<<32 | 42, c.number} {
				if all[0].Word(i) != want || all[1].Word(i) != want {
					t.Errorf("word %d is %#x and %#x, not %#x", i, all[0].Word(i), all[1].Word(i), want)
				}
			}
			if s := all[0].Word(3); s == 0 || s != all[1].Word(3) || all[0].Word(4) != 7777 || int64(all[1].Word(5)) != c.result {
				t.Errorf("stamps %#x and %#x, born %d, result %d", s, all[1].Word(3), all[0].Word(4), int64(all[1].Word(5)))
			}
			for i, a := range c.args {
				if all[0].Word(tcg.CallWords+i) != a {
					t.Errorf("argument %d is %#x", i, all[0].Word(tcg.CallWords+i))
				}
			}
			if got := fmt.Sprint(items[0]); !strings.HasSuffix(got, c.entry) {
				t.Errorf("fetched %s, not %s", got, c.entry)
			}
			if got := fmt.Sprint(items[1]); !strings.HasSuffix(got, c.back) {
				t.Errorf("fetched at the return %s, not %s", got, c.back)
			}
		})
	}
}

// TestCallSlept: a task that was switched away from has its return without the stamp of another call.
func TestCallSlept(t *testing.T) {
	enter, leave := testCalls(t, []string{"listen"})
	m := newMachine(t, 2)
	m.process()
	m.registers(50, 3, 5)
	r, err := newReader(m.ring, m.ring.shape)
	if err != nil {
		t.Fatal(err)
	}
	// It returns on another processor, and what the first one remembers is old when it comes back.
	m.run(enter, testRegs, 50)
	m.cpu = 1
	le.PutUint64(m.kernel[testTask][testLayout.voluntary:], 1)
	m.run(leave, testRegs, 0)
	m.run(enter, testRegs, 50)
	m.cpu = 0
	le.PutUint64(m.kernel[testTask][testLayout.involuntary:], 1)
	m.run(leave, testRegs, 0)
	var all []plugin.Record
	for len(all) < 4 {
		var rec plugin.Record
		ok, err := r.take(&rec)
		if ok {
			all = append(all, rec)
		} else if err == nil {
			t.Fatal(len(all), " records")
		}
	}
	for i, rec := range all {
		if want := uint16(tcg.EntryID + i%2); rec.Probe != want || (rec.Word(3) != 0) != (i%2 == 0) || rec.VCPU != []int{0, 1, 1, 0}[i] {
			t.Errorf("record %d: probe %d, stamp %#x, processor %d", i, rec.Probe, rec.Word(3), rec.VCPU)
		}
	}
}

// TestCallWhole: if all calls are wanted, one whose arguments lead nowhere has one record.
func TestCallWhole(t *testing.T) {
	const getppid, openat, exitGroup, clone = 110, 257, 231, 56
	enter, leave := testCalls(t, nil)
	m := newMachine(t, 1)
	m.process()
	m.user[0x400000] = []byte("/etc/passwd\x00")
	r, err := newReader(m.ring, m.ring.shape)
	if err != nil {
		t.Fatal(err)
	}
	one := func(number, result uint64, args ...uint64) ([]plugin.Record, [][]item) {
		m.registers(number, args...)
		m.run(enter, testRegs, number)
		m.run(leave, testRegs, result)
		return m.records(r)
	}
	all, _ := one(getppid, 1, 11, 12, 13, 14, 15, 16)
	if len(all) != 1 || all[0].Probe != tcg.WholeID || all[0].Words() != tcg.WholeWords || all[0].Word(5) != 1 || all[0].Word(tcg.CallWords+5) != 16 {
		t.Fatalf("%+v", all)
	}
	if began := all[0].Word(tcg.WholeWords - 1); began == 0 || began >= all[0].Ticks {
		t.Errorf("it began at %d and ended at %d", began, all[0].Ticks)
	}
	if all, _ = one(499, ^uint64(37), 1, 2); len(all) != 1 || all[0].Word(2) != 499 || all[0].Word(tcg.CallWords+1) != 2 {
		t.Errorf("a number that is not known: %+v", all)
	}
	all, items := one(openat, 3, ^uint64(99), 0x400000, 0)
	if len(all) != 2 || all[1].Probe != tcg.ReturnID || fmt.Sprint(items) != `[[0:"/etc/passwd":0] []]` {
		t.Errorf("openat: %+v %v", all, items)
	}
	if all, _ = one(clone, 0, 1<<20); len(all) > 1 || len(all) == 1 && all[0].Probe != tcg.EntryID {
		t.Errorf("the child of clone: %+v", all)
	}
	m.registers(exitGroup, 7)
	m.run(enter, testRegs, exitGroup)
	if all, _ = m.records(r); len(all) != 1 || all[0].Probe != tcg.EntryID || all[0].Word(tcg.CallWords) != 7 {
		t.Errorf("exit_group: %+v", all)
	}
}

// TestCallInterrupted: a program on the same processor interrupts one that has reserved its record.
func TestCallInterrupted(t *testing.T) {
	enter, _ := testCalls(t, []string{"unlink"})
	other, _ := testCalls(t, []string{"unlink"})
	m := newMachine(t, 1)
	m.process()
	m.registers(87, 0x400000)
	m.user[0x400000] = []byte("name\x00")
	r, err := newReader(m.ring, m.ring.shape)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		m.interrupt = func() { m.run(other, testRegs, 87) }
		m.run(enter, testRegs, 87)
		m.run(enter, testRegs, 87)
		all, items := m.records(r)
		if len(all) != 3 {
			t.Fatalf("%d records", len(all))
		}
		for i := range all {
			if fmt.Sprint(items[i]) != `[0:"name":0]` {
				t.Errorf("record %d: %v", i, items[i])
			}
		}
	}
}
