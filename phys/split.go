package phys

// Where PC-like machines end the RAM that lies below 4 GiB; the rest of RAM
// continues at 4 GiB, above the hole for PCI devices.
const (
	fourGiB = 1 << 32

	LowQ35         = 0x80000000 // q35: 2 GiB, once RAM reaches 2.75 GiB
	LowPC          = 0xc0000000 // i440fx (once RAM reaches 3.5 GiB), Firecracker, Cloud Hypervisor: 3 GiB
	LowFirecracker = 0xd0000000 // Firecracker before 1.13: 3.25 GiB
	LowQ35Old      = 0xb0000000 // q35 before 2.0: 2.75 GiB
	LowPCOld       = 0xe0000000 // i440fx before 2.0: 3.5 GiB
)

// Firmware is where PC-like machines have their interrupt controllers and, up to
// 4 GiB, the firmware's ROM: no RAM lies there. QEMU's dump-guest-memory writes the
// ROM along with the RAM; other dumps and running machines do not show it.
var Firmware = Range{Start: 0xfec00000, End: fourGiB}

// Identity is the map of a machine without a hole, or of a dump that includes
// it: byte N of the backing is guest-physical address N.
func Identity(size uint64) Layout {
	return Layout{Name: "no hole", Segments: []Segment{{Size: size}}}
}

// Split is the map of a PC with size bytes of RAM, of which at most low lie below
// the PCI hole and the rest from 4 GiB on.
func Split(name string, size, low uint64) Layout {
	if size <= low {
		return Identity(size)
	}
	return Layout{Name: name, Segments: []Segment{
		{Start: 0, Size: low, Offset: 0},
		{Start: fourGiB, Size: size - low, Offset: low},
	}}
}

// Q35 is QEMU's map for machine type q35 with size bytes of RAM and default
// options (hw/i386/pc_q35.c).
func Q35(size uint64) Layout {
	if size < LowQ35Old {
		return Identity(size)
	}
	return Split("q35, 2 GiB below the PCI hole", size, LowQ35)
}

// PC is QEMU's map for machine type pc (i440fx) and microvm with size bytes of
// RAM and default options (hw/i386/pc_piix.c, microvm.c).
func PC(size uint64) Layout {
	if size < LowPCOld {
		return Identity(size)
	}
	return Split("pc, 3 GiB below the PCI hole", size, LowPC)
}

// Candidates are the maps that size bytes of RAM in one piece can have on
// a PC-like machine, most likely first, without duplicates.
func Candidates(size uint64) []Layout {
	all := []Layout{
		Q35(size),
		PC(size),
		Identity(size),
		Split("firecracker, 3.25 GiB below the PCI hole", size, LowFirecracker),
		Split("2.75 GiB below the PCI hole", size, LowQ35Old),
		Split("3.5 GiB below the PCI hole", size, LowPCOld),
		Split("2 GiB below the PCI hole", size, LowQ35), // max-ram-below-4g=2G
		Split("3 GiB below the PCI hole", size, LowPC),
		Split("1 GiB below the PCI hole", size, 1<<30), // max-ram-below-4g=1G
	}
	return UniqueLayouts(all)
}

// UniqueLayouts drops from ls every layout whose segments an earlier one has.
func UniqueLayouts(ls []Layout) []Layout {
	var out []Layout
next:
	for _, l := range ls {
		for _, seen := range out {
			if l.Equal(seen) {
				continue next
			}
		}
		out = append(out, l)
	}
	return out
}
