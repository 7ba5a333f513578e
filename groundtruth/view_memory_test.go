package groundtruth

import (
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// spinning leaves a program on each of the guest's processors that never has enough of it,
// and takes only what others leave. They end in two minutes: the guest has other work to do.
func spinning(t *testing.T, g *lab.Guest) {
	t.Helper()
	const script = `printf '#!/bin/sh\nrenice -n 19 -p $$ >/dev/null\nwhile :; do :; done\n' > /tmp/osspin && chmod +x /tmp/osspin || exit 1
for i in $(seq $(nproc)); do
	taskset $((1 << i - 1)) timeout 120 /tmp/osspin >/dev/null 2>&1 </dev/null & echo $!
done >/tmp/osspin.pids
sleep 1`
	labtest.Output(t, g, script)
}

func stopSpinning(t *testing.T, g *lab.Guest) {
	t.Helper()
	labtest.Output(t, g, `kill $(cat /tmp/osspin.pids) 2>/dev/null; true`)
}

func init() {
	const mib = 1 << 20
	// The sums move with everything that runs, the program that reports most of all.
	register(viewCase{
		view: "meminfo", near: map[string]float64{"size": 8 * mib},
		exact: func(row map[string]any) bool {
			name, _ := row["name"].(string)
			return strings.HasPrefix(name, "DirectMap") || slices.Contains([]string{"MemTotal", "SwapTotal", "CmaTotal", "HardwareCorrupted", "Hugetlb", "CommitLimit", "Buffers", "Mlocked", "SecPageTables"}, name)
		},
		// Nor are all lines told; what programs were promised, the one that reports most of all, is far off.
		ignore: func(row map[string]any) bool {
			return slices.Contains([]string{
				"VmallocTotal", "VmallocChunk", "NFS_Unstable", "Bounce", "WritebackTmp", "Hugepagesize", "Zswap", "Zswapped",
				"Committed_AS", "AnonHugePages", "ShmemHugePages", "ShmemPmdMapped", "FileHugePages", "FilePmdMapped", "Unaccepted", "Balloon", "GPUActive", "GPUReclaim",
			}, row["name"].(string))
		},
	})
	register(viewCase{view: "zones", near: map[string]float64{"free": 8 * mib}, blur: func(row map[string]any) {
		// Nobody takes from the lowest while there is another; of that the lists never rest.
		if blocks, _ := row["free_blocks"].([]any); row["zone"] != "DMA" {
			row["free_blocks"] = len(blocks)
		}
	}})
	register(viewCase{view: "slabs", near: map[string]float64{"active": 2000, "objects": 2000, "slabs": 100}, exact: func(row map[string]any) bool {
		// Caches that no program's start touches.
		name, _ := row["name"].(string)
		return slices.Contains([]string{"task_group", "bdev_cache", "shared_policy_node", "dma-kmalloc-8", "mqueue_inode_cache", "net_namespace", "Acpi-Operand", "Acpi-Namespace", "Acpi-Parse"}, name)
	}})
	// Stacks of threads come and go with them.
	register(viewCase{view: "vmalloc", ignore: func(row map[string]any) bool {
		caller, _ := row["caller_symbol"].(string)
		return strings.HasPrefix(caller, "kernel_clone+")
	}})
	register(viewCase{view: "symbols", subset: true})
	register(viewCase{view: "disks"})
	register(viewCase{view: "pci"})
	register(viewCase{view: "vmcoreinfo"})
	register(viewCase{view: "runqueues", keys: []string{"pid"}, prepare: spinning, undo: stopSpinning, subset: true})
}

func init() {
	// With colours, a line that was drawn, and one that went off the screen.
	register(viewCase{view: "consoles", prepare: func(t *testing.T, g *lab.Guest) {
		labtest.Output(t, g, `{ seq 30; printf 'hello \342\224\200\342\224\200 \033[1;31mred\033[0m\033[3;40Hthere'; } >/dev/tty5`)
	}})
}
