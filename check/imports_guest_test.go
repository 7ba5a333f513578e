package check_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/virt"
)

// TestGuestImports: in a process that is linked dynamically and has no socket, nothing is found,
// again and again; then the address by which it calls a function is led to its own heap.
func TestGuestImports(t *testing.T) {
	labtest.NeedQEMU(t)
	g := labtest.Up(t, lab.Options{Memory: 512 << 20, Files: labtest.GuestAgent(t), QEMUArgs: agentPort, Modules: []string{labtest.AgentModule}})
	labtest.StartGuestAgent(t, g)
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	only, err := check.Select([]string{"redirected-import"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		silentFor(t, s, only)
	}
	performFor(t, g, s, trick{"address of a function led to the heap", (*zoo).redirectImport, []string{"redirected-import"}}, only)
	silentFor(t, s, only)
}

// redirectImport leads an import of the guest agent, which it does not call meanwhile, to its heap.
func (z *zoo) redirectImport() {
	z.Helper()
	reader := z.look.Linux.NewProcessReader()
	for task, err := range z.look.Processes(z.Context()) {
		if err != nil || !strings.Contains(task.Exe, "qemu-ga") {
			continue
		}
		var maps []*linux.Mapping
		var heap virt.Addr
		for m, err := range reader.MappingsOf(z.Context(), task.MM) {
			if err != nil {
				z.Fatal(err)
			}
			if maps = append(maps, m); m.File == 0 && m.Flags&linux.VMExec == 0 && heap == 0 {
				heap = m.Start + 0x40
			}
		}
		space, err := z.look.Linux.UserSpace(task.MM)
		if err != nil {
			z.Fatal(err)
		}
		memory := z.look.Linux.FilledMemory(space, maps)
		for _, i := range linux.ImagesAmong(maps) {
			imports, err := image.ImportsOf(memory, i.Start)
			if err != nil {
				continue
			}
			for _, one := range imports.All {
				name, err := imports.Name(one)
				page, fault := space.Translate(one.Slot)
				if err == nil && fault == nil && name == "abort" && heap != 0 {
					z.writePhysical(uint64(page.PA), binary.LittleEndian.AppendUint64(nil, uint64(heap)))
					z.Logf("%s calls %s by %#x, at %#x", i.Path, name, uint64(one.Target), uint64(one.Slot))
					return
				}
			}
		}
	}
	z.Fatal("no process with the import")
}
