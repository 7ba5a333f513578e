package proc

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseMaps(t *testing.T) {
	maps, err := ParseMaps("7f7b5a9ff000-7f7c9a9ff000 rw-s 00001000 00:01 1027                       /memfd:memory-backend-memfd (deleted)\n" +
		"7f7c9a9ff000-7f7c9aa00000 ---p 00000000 00:00 0 \n" +
		"558df34ff000-558df385e000 r-xp 00b10000 fe:00 10166284                   /opt/my vm/qemu\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []Map{
		{Start: 0x7f7b5a9ff000, End: 0x7f7c9a9ff000, Shared: true, Writable: true, Offset: 0x1000, Dev: 1, Inode: 1027, Path: "/memfd:memory-backend-memfd (deleted)"},
		{Start: 0x7f7c9a9ff000, End: 0x7f7c9aa00000},
		{Start: 0x558df34ff000, End: 0x558df385e000, Executable: true, Offset: 0xb10000, Dev: 0xfe00, Inode: 10166284, Path: "/opt/my vm/qemu"},
	}
	if d := cmp.Diff(want, maps); d != "" {
		t.Error(d)
	}
	if m, ok := FindMap(maps[:2], 0x7f7c9a9ff000); !ok || m.Writable {
		t.Errorf("found %+v", m)
	}
	if _, ok := FindMap(maps[:2], 1); ok {
		t.Error("found what is not there")
	}
}

func TestStartTime(t *testing.T) {
	stat := "71 (qemu (x) y) S 1 71 71 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 4 0 12345 1 2 3\n"
	if v, err := startTime([]byte(stat)); err != nil || v != 12345 {
		t.Errorf("%d %v", v, err)
	}
}

func TestThisProcess(t *testing.T) {
	p, err := Get(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if exe, _ := os.Executable(); p.Exe != exe || len(p.Args) == 0 || p.UID != os.Geteuid() {
		t.Errorf("%+v", p)
	}
	if d := time.Since(p.CreatedAt()); d < -time.Second || d > time.Hour {
		t.Errorf("started %v ago", d)
	}
	if _, err := Maps(p.PID); err != nil {
		t.Error(err)
	}
	if _, known := HasFD(p.PID, KVMMachine); !known {
		t.Error("cannot see our own descriptors")
	}
}

func FuzzParseMaps(f *testing.F) {
	f.Add("7f7b5a9ff000-7f7c9a9ff000 rw-s 00001000 00:01 1027  /memfd:x (deleted)\n")
	f.Add("0-1 ---- 0 0:0 0")
	f.Fuzz(func(t *testing.T, text string) {
		maps, _ := ParseMaps(text)
		for _, m := range maps {
			if m.End <= m.Start {
				t.Errorf("%+v", m)
			}
		}
	})
}

func FuzzStartTime(f *testing.F) {
	f.Add([]byte("1 (a) S 1 1 1 0 -1 1 1 0 0 0 5 6 0 0 20 0 4 0 12345 1"))
	f.Fuzz(func(_ *testing.T, stat []byte) { _, _ = startTime(stat) })
}
