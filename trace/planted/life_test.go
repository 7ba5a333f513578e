package planted

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

const (
	testParent = kernelMin + 0x3000
	testCred   = kernelMin + 0x3100
	testChild  = kernelMin + 0x3200
	testSignal = kernelMin + 0x3300
	testBinary = kernelMin + 0x3400
	testFile   = kernelMin + 0x3500
	testMM     = kernelMin + 0x3600
	testFS     = kernelMin + 0x3700
	testInode  = kernelMin + 0x3800
	testMount  = kernelMin + 0x3900
	testSuper  = kernelMin + 0x3a00
	testDentry = kernelMin + 0x4000 // and those above, 0x100 further each
)

// family is a machine with a process that has a parent, credentials and a program to run at /usr/bin/NAME.
func family(t *testing.T, name string) *machine {
	o := testLayout
	m := newMachine(t, 1)
	m.process()
	object := func(a uint64, n int) []byte { m.kernel[a] = make([]byte, n); return m.kernel[a] }
	parent, cred, binary, file, mm, fs := object(testParent, 0x80), object(testCred, 16), object(testBinary, 32), object(testFile, 32), object(testMM, 32), object(testFS, 16)
	le.PutUint32(parent[o.tgid:], 40)
	le.PutUint32(cred[o.uid:], 1000)
	task := m.kernel[testTask]
	for off, v := range map[int32]uint64{o.parent: testParent, o.cred: testCred, o.mm: testMM, o.fs: testFS, o.signal: testSignal} {
		le.PutUint64(task[off:], v)
	}
	le.PutUint64(binary[o.execName:], 0x400000)
	le.PutUint64(binary[o.file:], testFile)
	le.PutUint64(file[o.fileDentry:], testDentry)
	le.PutUint64(file[o.fileMnt:], testMount)
	le.PutUint64(fs[o.rootMnt:], testMount)
	le.PutUint64(mm[o.argStart:], 0x500000)
	le.PutUint64(mm[o.argEnd:], 0x500000+9)
	m.user[0x400000], m.user[0x500000] = []byte("./"+name+"\x00"), []byte("a\x00bc\x00def\x00")
	inode := object(testInode, 16)
	le.PutUint32(inode[o.links:], 1)
	names := []string{name, "bin", "usr", "/"}
	for i, n := range names {
		a := uint64(testDentry) + 0x100*uint64(i)
		d := object(a, 0x80)
		above := a + 0x100
		if i == len(names)-1 {
			above = a
		}
		le.PutUint64(d[o.above:], above)
		le.PutUint64(d[o.inode:], testInode)
		le.PutUint64(d[o.super:], testSuper)
		le.PutUint32(d[o.length:], uint32(len(n)))
		if len(n) < int(o.inlineSize) {
			copy(d[o.inline:], n)
		}
	}
	return m
}

func (m *machine) only(r *reader) (plugin.Record, string) {
	m.t.Helper()
	all, items := m.records(r)
	if len(all) != 1 {
		m.t.Fatalf("%d records", len(all))
	}
	for i, want := range []uint64{testTask, 41<<32 | 42, 0, 7777, 40, 1000} {
		if got := all[0].Word(i); got != want {
			m.t.Errorf("word %d is %#x, not %#x", i, got, want)
		}
	}
	text := fmt.Sprint(items[0])
	if !strings.Contains(text, fmt.Sprintf(`%d:"worker":0]`, tcg.TagComm)) {
		m.t.Errorf("the name of the task is not in %s", text)
	}
	return all[0], text
}

// TestExecProgram has the file, arguments, and path of a program; of another mount, and with a name that lies elsewhere.
func TestExecProgram(t *testing.T) {
	const path, whole = tcg.TagPath, tcg.TagWhole
	long := strings.Repeat("n", 40)
	for _, c := range []struct {
		name  string
		mount bool
		want  string
		super uint64
	}{
		{"prog", true, fmt.Sprintf(`[0:"./prog":0 1:"a\x00bc\x00def\x00":0 %d:"prog":0 %d:"bin":0 %d:"usr":0 %d:"":0 `, path, path, path, whole), 0},
		{"prog", false, fmt.Sprintf(`[0:"./prog":0 1:"a\x00bc\x00def\x00":0 %d:"prog":0 %d:"bin":0 %d:"usr":0 %d:"":0 `, path, path, path, whole), testSuper},
		{long, true, fmt.Sprintf(`[0:"./%s":0 1:"a\x00bc\x00def\x00":0 %d:"":2 `, long, path), 0},
	} {
		m := family(t, c.name)
		if !c.mount {
			le.PutUint64(m.kernel[testFS][testLayout.rootMnt:], testMount+8)
		}
		r, err := newReader(m.ring, m.ring.shape)
		if err != nil {
			t.Fatal(err)
		}
		m.run(testLayout.exec(minArea), testTask, 0, testBinary)
		rec, text := m.only(r)
		if rec.Probe != tcg.DoorID(trace.KindExec) || rec.Word(own) != 1 || rec.Word(own+1) != 9 || rec.Word(own+2) != c.super || !strings.HasPrefix(text, c.want) {
			t.Errorf("probe %d, words %d %d %#x, items %s, not %s", rec.Probe, rec.Word(own), rec.Word(own+1), rec.Word(own+2), text, c.want)
		}
		// Arguments without end are cut.
		le.PutUint64(m.kernel[testMM][testLayout.argEnd:], 0x500000+20_000)
		m.user[0x500000] = bytes.Repeat([]byte("x"), 20_000)
		m.run(testLayout.exec(minArea), testTask, 0, testBinary)
		if _, text := m.only(r); !strings.Contains(text, ` 1:"`+strings.Repeat("x", maxArguments)+`":1 `) {
			t.Errorf("long arguments: %.100s", text)
		}
	}
}

// TestLifePrograms has processes that begin and end, and none of their threads, nor of the kernel's.
func TestLifePrograms(t *testing.T) {
	o := testLayout
	m := family(t, "prog")
	r, err := newReader(m.ring, m.ring.shape)
	if err != nil {
		t.Fatal(err)
	}
	child := make([]byte, 0x80)
	m.kernel[testChild] = child
	le.PutUint32(child[o.pid:], 43)
	le.PutUint32(child[o.tgid:], 43)
	le.PutUint64(child[o.started:], 8888)
	le.PutUint64(child[o.parent:], testParent)
	copy(child[o.comm:], "sixteen letters!")
	m.run(o.fork(minArea), testTask, testChild)
	rec, text := m.only(r)
	if rec.Probe != tcg.DoorID(trace.KindFork) || rec.Word(own) != testChild || rec.Word(own+1) != 43 || rec.Word(own+2) != 8888 || rec.Word(own+3) != 40 || rec.Word(own+4) != 0 || !strings.HasPrefix(text, `[0:"sixteen letters!":0 `) {
		t.Errorf("fork: %+v %s", rec, text)
	}
	signal := make([]byte, 32)
	m.kernel[testSignal] = signal
	le.PutUint32(m.kernel[testTask][o.exitCode:], 7<<8)
	le.PutUint32(signal[o.signalFlags:], 4)
	le.PutUint32(signal[o.groupExit:], 9)
	m.run(o.quit(minArea), testTask)
	rec, _ = m.only(r)
	if rec.Probe != tcg.DoorID(trace.KindExit) || rec.Word(own) != 7<<8 || rec.Word(own+1) != 4 || rec.Word(own+2) != 9 {
		t.Errorf("exit: %+v", rec)
	}
	le.PutUint32(signal[o.live:], 1) // other threads
	m.run(o.quit(minArea), testTask)
	le.PutUint32(child[o.tgid:], 41)
	m.run(o.fork(minArea), testTask, testChild)
	le.PutUint32(child[o.tgid:], 43)
	le.PutUint32(child[o.flags:], kernelThread)
	m.run(o.fork(minArea), testTask, testChild)
	if all, _ := m.records(r); len(all) != 0 {
		t.Errorf("%d records of threads: %+v", len(all), all)
	}
	module := make([]byte, 0x80)
	m.kernel[testBinary] = module
	copy(module[o.moduleName:], "dummy")
	le.PutUint64(module[o.taints:], 1<<12)
	m.run(o.module(minArea, trace.KindModule), testBinary)
	if rec, text = m.only(r); rec.Probe != tcg.DoorID(trace.KindModule) || rec.Word(own) != 1<<12 || rec.Word(own+1) != testBinary || !strings.HasPrefix(text, `[0:"dummy":0 `) {
		t.Errorf("module: %+v %s", rec, text)
	}
	before, _ := r.beats()
	m.run(beat(minArea), testTask)
	if after, err := r.beats(); after != before+1 || err != nil {
		t.Errorf("%d beats after %d: %v", after, before, err)
	}
}
