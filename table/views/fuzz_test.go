package views_test

import (
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

// FuzzViews overwrites words of a guest, of whose kernel everything is known
// already, and looks at every view: none panics, and none reads without end. The
// input is pairs of where and what, eight bytes each.
func FuzzViews(f *testing.F) {
	pair := func(words ...uint64) (b []byte) {
		for _, w := range words {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		return b
	}
	f.Add(false, []byte{})
	f.Add(true, pair(0, 0, 1, ^uint64(0)))
	f.Add(false, pair(400, 1<<63|400, 404, 1<<62|7))
	var guests [2]*synth.Guest
	var systems [2]*linux.System
	var words [2][]phys.Addr
	for i, old := range []bool{false, true} {
		g := synth.New(synth.Options{Old: old})
		for pid := range int32(4) {
			g.Add(synth.Process{PID: 1 + pid, Comm: "p", Exe: "/bin/p", Args: []string{"p", "q"}})
		}
		s, err := linux.Open(f.Context(), g.Memory, kernel.Options{})
		if err != nil {
			f.Fatal(err)
		}
		// The words that any view reads are those worth changing.
		noting := &noter{Memory: g.Memory, left: 1 << 40, seen: map[phys.Addr]bool{}}
		everyView(f, s, noting, nil)
		guests[i], systems[i], words[i] = g, s, noting.words
	}
	f.Fuzz(func(t *testing.T, old bool, b []byte) {
		i := 0
		if old {
			i = 1
		}
		lies := map[phys.Addr]uint64{}
		for ; len(b) >= 16 && len(lies) < 64; b = b[16:] {
			at := words[i][binary.LittleEndian.Uint64(b)%uint64(len(words[i]))]
			v := binary.LittleEndian.Uint64(b[8:])
			switch v >> 62 {
			case 2: // the place of another word: no fuzzer guesses an address
				v = guests[i].Direct(words[i][v<<2>>2%uint64(len(words[i]))])
			case 1: // a small number
				v &= 0xffff
			}
			lies[at] = v
		}
		everyView(t, systems[i], &noter{Memory: guests[i].Memory, left: 4 << 20}, lies)
	})
}

// noter is memory with lies in it that notes what is read, if it has a set for that,
// and goes away after so many reads.
type noter struct {
	phys.Memory
	left  int
	lies  map[phys.Addr]uint64
	seen  map[phys.Addr]bool
	words []phys.Addr
}

func (m *noter) ReadAt(p []byte, pa phys.Addr) (int, error) {
	if m.left--; m.left < 0 {
		return 0, phys.ErrGone
	}
	n, err := m.Memory.ReadAt(p, pa)
	end := pa + phys.Addr(n)
	for at := pa &^ 7; m.seen != nil && len(p) <= phys.PageSize && at < end; at += 8 {
		if !m.seen[at] {
			m.seen[at] = true
			m.words = append(m.words, at)
		}
	}
	for at, v := range m.lies {
		for j := range phys.Addr(8) {
			if at+j >= pa && at+j < end {
				p[at+j-pa] = byte(v >> (8 * j))
			}
		}
	}
	return n, err
}

func everyView(t testing.TB, known *linux.System, m *noter, lies map[phys.Addr]uint64) {
	m.lies = lies
	k := *known.Kernel
	k.Memory = m
	k.Space = virt.New(m, known.Space.Root(), known.Space.Levels()).WithDirectMap(known.Space.DirectBase())
	budget := m.left
	for _, v := range table.All() {
		if table.SpecOf(v).Host {
			continue
		}
		m.left = budget
		s, err := linux.New(&k)
		if err != nil {
			t.Fatal(err)
		}
		g := &guest.Look{Target: "fuzz", Linux: s, Machine: &vm.Machine{Memory: m, Proven: true}}
		out, err := table.NewEncoder(io.Discard, table.JSON, v.Columns(), table.Options{Zone: time.UTC})
		if err != nil {
			t.Fatal(err)
		}
		var report table.Report
		for row := range table.Rows(t.Context(), v, g, table.Request{}, &report) {
			if err := out.Row(row); err != nil {
				t.Fatal(err)
			}
		}
		if m.left < 0 {
			t.Fatalf("view %s reads without end; %d rows", v.Name(), report.Rows)
		}
	}
}
