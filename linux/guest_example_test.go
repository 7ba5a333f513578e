package linux_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm/local"
)

var (
	ctx    = context.Background()
	system *linux.System // of the guest that the examples look at
)

// A live guest, by any TARGET that the command line takes.
func ExampleOpen() {
	machine, err := local.Open(ctx, os.Getenv("OUTSIGHT_TARGET"))
	if err != nil {
		log.Fatal(err)
	}
	defer machine.Close()
	guest, err := linux.Open(ctx, machine.Memory, kernel.Options{Cache: kernel.DefaultCache()})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(guest.Release, guest.BuildID)
}

func ExampleProcessReader_Process() {
	lister := system.NewProcessReader()
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		p, err := lister.Process(ctx, task)
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(p.PID, p.PPID, p.Creds.UID, p.Comm, p.Exe, p.Args)
	}
}

func ExampleProcessReader_Threads() {
	lister := system.NewProcessReader()
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		for thread, err := range lister.Threads(ctx, task) {
			if err != nil {
				log.Print(err)
				continue
			}
			t, err := lister.Thread(thread)
			if err == nil {
				fmt.Println(t.PID, t.TID, t.Comm, t.Policy, t.CPUTime)
			}
		}
	}
}

func ExampleProcessReader_KernelThreadOf() {
	lister := system.NewProcessReader()
	owners, err := system.Owners()
	if err != nil {
		log.Fatal(err)
	}
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		k, err := lister.KernelThreadOf(task)
		if err == nil && k != nil {
			fmt.Println(k.PID, k.Comm, owners.CodeAt(k.Function))
		}
	}
}

func ExampleProcessReader_CredOf() {
	lister := system.NewProcessReader()
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		c, err := lister.CredOf(task)
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(c.PID, c.UID, c.GID, c.Groups, c.Seccomp, c.NoNewPrivs)
	}
}

func ExampleProcessReader_Environment() {
	lister := system.NewProcessReader()
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		variables, err := lister.Environment(task)
		if err != nil {
			log.Print(err)
			continue
		}
		fmt.Println(len(variables))
	}
}

func ExampleProcessReader_Files() {
	lister := system.NewProcessReader()
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		for f, err := range lister.Files(ctx, task) {
			if err != nil {
				log.Print(err)
				continue
			}
			fmt.Println(f.FD, f.Path, f.Inode, f.Deleted)
		}
	}
}

func ExampleProcessReader_Mappings() {
	lister := system.NewProcessReader()
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		for m, err := range lister.Mappings(ctx, task) {
			if err != nil {
				log.Print(err)
				continue
			}
			fmt.Printf("%#x-%#x %s\n", m.Start, m.End, m.Path)
		}
	}
}

func ExampleProcessReader_Mounts() {
	lister := system.NewProcessReader()
	seen := map[virt.Addr]bool{}
	for task, err := range system.Processes(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		ns, _, err := lister.MountNamespaceOf(task)
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		for m, err := range lister.Mounts(ctx, ns) {
			if err != nil {
				log.Print(err)
				continue
			}
			fmt.Println(m.NS, m.Point, m.Type, m.Options)
		}
	}
}

func ExampleSystem_Cgroups() {
	for c, err := range system.Cgroups(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(c.Path, c.Version, c.Processes)
	}
}

func ExampleSystem_Namespaces() {
	for n, err := range system.Namespaces(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(n.Kind, n.Inode, n.Processes)
	}
}

func ExampleSystem_Containers() {
	for c, err := range system.Containers(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(c.Container, c.RootPID, c.Root)
	}
}

func ExampleSystem_FileSystems() {
	for f, err := range system.FileSystems(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		fmt.Println(f.Name, f.Module)
	}
}

func ExampleSystem_INodes() {
	for sb, err := range system.SuperBlocks(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		for i, err := range system.INodes(ctx, sb) {
			if err != nil {
				log.Print(err)
				continue
			}
			fmt.Println(sb.Type, i.Number, i.Size, i.Cached)
		}
	}
}

func ExampleSystem_CachedPages() {
	for sb, err := range system.SuperBlocks(ctx) {
		if err != nil {
			log.Print(err) // one that cannot be read is not the end
			continue
		}
		for i, err := range system.INodes(ctx, sb) {
			if err != nil || i.Cached == 0 {
				continue
			}
			for r, err := range system.CachedPages(ctx, i) {
				if err == nil {
					fmt.Println(i.Number, r.Offset, r.Size, r.PA)
				}
			}
		}
	}
}

func ExampleSystem_FileParts() {
	for t, err := range system.Processes(ctx) {
		if err != nil {
			continue
		}
		file, err := system.FindFile(ctx, t, "/etc/passwd")
		if err != nil {
			log.Fatal(err)
		}
		for p, err := range system.FileParts(ctx, file) {
			if err == nil {
				fmt.Println(p.Start, p.End, p.In, p.Missing)
			}
		}
		return
	}
}
