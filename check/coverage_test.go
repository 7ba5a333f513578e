package check_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/check"
)

const coveragePage = "../docs/coverage.md"

// covered is something that intruders leave in memory, and what finds it.
type covered struct {
	what   string
	seen   string // in which public rootkits and implants, of those that are described in public
	attack string // technique of MITRE ATT&CK
	checks []string
	tricks []string // of the zoo
	missed string   // what of it is not found
}

var coverage = []covered{
	{"system call table overwritten", "Diamorphine, Suterusu, nurupo, Puszek, Skidmap", "T1014", []string{"code-pointer", "system-call-function", "module-hook"}, []string{"system call elsewhere", "system call by another's function", "system call in a module", "a system call in the table"}, ""},
	{"dispatcher of system calls patched (x64_sys_call, since 6.9)", "later forks of Diamorphine", "T1014", []string{"kernel-text", "system-call-function", "text-branch"}, []string{"dispatcher to another's function", "jump in a function to a module"}, ""},
	{"copy of the system call table, with the dispatcher patched", "SucKIT and its kin", "T1014", []string{"kernel-text", "system-call-function"}, []string{"dispatcher to another's function"}, "without an image of the kernel, and where the dispatcher reads the table by an address in its own text"},
	{"inline hook at the start of a function", "Reptile (khook), Suterusu, Drovorub, Melofee", "T1014", []string{"kernel-text", "ftrace-triple", "text-branch"}, []string{"jump at the start of a function", "jump in the place for tracing", "jump in a function to a module", "key switched without its code, in the hand of a task"}, ""},
	{"inline hook in the middle of a function", "Reptile, private kits", "T1014", []string{"kernel-text", "text-branch"}, []string{"a jump in a function", "jump in a function to code of an unknown owner", "address in a register, to a module", "pushed address, to a module"}, ""},
	{"inline hook in a module", "private kits", "T1014", []string{"module-text", "text-branch"}, []string{"call from one module into another"}, "a change within the module, where its file is nowhere to be found"},
	{"function of the kernel changed in place (a check taken out)", "kernel exploits, Singularity", "T1562.001", []string{"kernel-text"}, []string{"function that does nothing"}, "without an image of the kernel"},
	{"ftrace hook of a module that hides", "KoviD, PUMAKIT, Caraxes, Singularity, rootkat", "T1014", []string{"code-pointer", "hidden-code", "hidden-module", "ftrace-triple"}, []string{"a traced function of a module that hides", "tracer off the list"}, ""},
	{"live patch (klp) of a module on the list", "private kits", "T1014", nil, nil, "live patches of vendors and administrators look the same: a fact in the views ftrace and modules, with the taint flag K"},
	{"ftrace hook of a module on the list", "Caraxes, tutorials and their many copies", "T1014", []string{"ftrace-triple", "module-hook"}, []string{"module replaces a function", "module watches a function"}, ""},
	{"trampoline of tracing or BPF changed", "none known", "T1014", []string{"trampoline-code"}, []string{"trampoline of a tracer led elsewhere", "trampoline of a tracer jumps elsewhere", "trampoline of BPF led elsewhere", "trampoline of BPF led into a module, as if it were being freed"}, "code of BPF that computes where it goes"},
	{"kprobe, kretprobe or fprobe", "KoviD, Drovorub", "T1014", []string{"code-pointer", "hidden-code", "hidden-module", "module-hook"}, []string{"a probe of a module that hides", "a probe of a module that does not hide", "a function probed by fprobe"}, "whether a probe belongs to a product or a rootkit cannot be told from the kernel alone"},
	{"jump of a forged optimized probe, static call or pv_ops", "none known", "T1014", []string{"kernel-text", "text-branch"}, []string{"jump in a function to a module"}, ""},
	{"tracepoint function (sched_process_fork and others)", "Singularity", "T1014", []string{"code-pointer", "module-hook", "hidden-code"}, []string{"a tracepoint of a module"}, ""},
	{"probes of programs' code by a module (uprobes)", "private kits", "T1056", []string{"module-hook"}, []string{"a program probed by a module"}, "probes of perf, ftrace and BPF, which the views show"},
	{"handler of binary formats of a module, which sees every program that starts", "tutorials", "T1546", []string{"module-hook", "helper-path"}, []string{"programs that start shown to a module first"}, "of a module that came with the kernel"},
	{"interrupt gate, exception handler", "kbeast, private kits", "T1014", []string{"code-pointer", "descriptor-table", "kernel-text"}, []string{"gate elsewhere", "gate to a function that is no entry", "interrupt that programs may raise"}, ""},
	{"interrupt table that only the processor's IDTR leads to", "kbeast, private kits", "T1014", []string{"processor-state", "code-pointer"}, []string{"interrupt table of one processor copied"}, "where the monitor shows no registers"},
	{"entry of system calls changed in the processor (MSR_LSTAR)", "private kits", "T1014", nil, nil, "the register, which no monitor shows; the code that it leads to is found by hidden-code and hidden-module"},
	{"breakpoint in a debug register (DR0 to DR7)", "mood-nt, private kits", "T1014", []string{"processor-state", "code-pointer"}, []string{"breakpoint in a debug register"}, "where the monitor shows no registers"},
	{"vDSO patched, pages beside it made executable", "private kits", "T1055.009", []string{"vdso"}, []string{"vDSO of all processes", "vDSO of one process", "pages of the time executable in a process"}, ""},
	{"call gate, segment of the kernel's privilege in the GDT or an LDT", "private kits", "T1014", []string{"descriptor-table"}, []string{"call gate in the descriptor table", "code of ring 0 in the descriptor table"}, ""},
	{"stack or task state segment of a processor elsewhere", "private kits", "T1014", []string{"descriptor-table", "processor-state"}, []string{"stack for exceptions elsewhere"}, ""},
	{"write protection, SMEP or SMAP left off", "kernel exploits, kits that patch text", "T1562.001", []string{"processor-state"}, []string{"write protection left off"}, "for a moment, between two looks"},
	{"module that goes by another name", "private kits", "T1036.004", []string{"hidden-module"}, []string{"module with another name"}, "a module that was loaded by the name of another"},
	{"module taken off the list", "nearly all", "T1547.006", []string{"hidden-module", "hidden-code", "code-pointer", "operations-table"}, []string{"module off the list"}, ""},
	{"module taken off sysfs (kobject_del)", "KoviD, Reptile, Caraxes, Singularity", "T1547.006", []string{"hidden-module"}, []string{"module off sysfs"}, ""},
	{"code that left its module, or has none (memory of vmalloc, set_memory_x)", "LKM-TLSKIT, kmatryoshka loaders", "T1014", []string{"hidden-code", "code-pointer"}, []string{"heap executable", "notifier in code of an unknown owner", "code that a BPF program claims"}, ""},
	{"module under the name of another", "Skidmap", "T1036.005", []string{"module-hook", "taint"}, []string{"module watches a function"}, "a module that is on the list under any name and hooks nothing"},
	{"taint flags cleared", "Singularity, KoviD", "T1562.001", []string{"taint"}, []string{"taint cleared", "taint that a module cleared of itself"}, "where the module clears its own flags, and claims that it was signed"},
	{"executable page that can be written, text made writable", "kits that change CR0.WP or page tables", "T1014", []string{"hidden-code", "processor-state"}, []string{"text writable", "heap executable", "write protection left off"}, "CR0.WP between two looks"},
	{"page tables that map other kernel memory for one process, user-accessible kernel memory", "private kits", "T1014", []string{"kernel-mapping"}, []string{"other kernel memory for one process", "user-accessible kernel memory"}, "the second top page table of each process where page tables are isolated (PTI)"},
	{"file_operations, iterate_shared, filldir", "adore-ng, Puszek", "T1564.001", []string{"operations-table", "kernel-text"}, []string{"table of a file copied", "table of an inode copied", "function of /proc elsewhere", "function of /proc in a module"}, ""},
	{
		"function pointers in the kernel's writable data: neighbour tables, routes, consoles, clocks, soft interrupts", "private kits", "T1014",
		[]string{"data-pointer", "hidden-code"},
		[]string{
			"function of a neighbour table elsewhere", "function of routes elsewhere", "clock of one processor elsewhere", "soft interrupt to a module of the kernel's own", "sealed pointer to a module of the kernel's own",
			"function of a neighbour table in a module", "function of routes in a module", "function of a clock in a module, where it has none", "soft interrupt in a module", "function of a console in a module",
		},
		"without an image of the kernel; variables that are empty in the image",
	},
	{
		"function pointers in the kernel's writable data exchanged for other functions of the kernel's own (notifiers, checks, protocols)", "private kits", "T1562.001",
		[]string{"data-pointer"},
		[]string{"pointer to another function of the kernel"},
		"without an image of the kernel; functions whose address is in some instruction or table; static calls; what is sealed; pointers in allocated memory",
	},
	{
		"tables of operations in a module that stays on the list: names of folders, pages of files, headers of network devices", "private kits", "T1014",
		[]string{"operations-table"},
		[]string{"headers of a network device copied into a module", "names of a folder compared by a module", "pages of a file by a table in a module"},
		"of a module that a key of the kernel signed",
	},
	{"breakpoint of the processor's, registered by a module (perf)", "tutorials", "T1014", []string{"module-hook"}, []string{"breakpoint that a module registered"}, ""},
	{"handlers of sysctls", "private kits", "T1014", []string{"operations-table", "code-pointer"}, []string{"function of a sysctl in a module"}, ""},
	{"messages of rtnetlink, families of sockets, misc devices, queues of disks led to a module", "private kits", "T1014", []string{"operations-table"}, []string{"message of rtnetlink answered by a module", "sockets for packets made by a table in a module", "misc device by a table in a module"}, "qdiscs, NAPI, interrupts' flow handlers, kernfs and functions of single sockets, where the module is on the list; hidden-module and hidden-code find one that is not"},
	{"mappings of processes (vm_operations_struct), scheduling classes, restart_block of tasks", "private kits", "T1014", []string{"operations-table"}, []string{"memory of a process served by a table in a module", "a module's function after a signal"}, ""},
	{"tables of /proc entries, seq_operations.show", "adore-ng, Suterusu, KoviD", "T1014", []string{"operations-table"}, []string{"table of an entry of /proc copied", "table of an entry of /proc copied into a module", "list of connections elsewhere"}, ""},
	{
		"answers to programs filtered in the kernel: getdents64, /proc/net, /proc/modules", "Diamorphine, Reptile, KoviD, Puszek, adore-ng and most others", "T1564.001",
		[]string{"lied-to", "kernel-text", "operations-table"},
		[]string{"process left out of /proc", "file left out of its directory", "port left out of /proc/net/tcp", "module left out of /proc/modules", "process off its PID, for who lists /proc", "module off the list, for lsmod"},
		"where the machine runs without the plugin, and what no program asks for while outsight listens",
	},
	{"answers to programs changed on their way out of the kernel by BPF", "ebpfkit, TripleCross, bad-bpf", "T1564", []string{"lied-to", "bpf-tampering"}, []string{"BPF program that hides itself"}, "where the machine runs without the plugin"},
	{"protocol handlers (inet_protos), packet_type", "private backdoors", "T1205", []string{"operations-table"}, []string{"protocol elsewhere", "protocol in a module", "packets of a kind elsewhere"}, ""},
	{"tcp_prot and sockets' own functions", "private backdoors", "T1014", []string{"operations-table"}, []string{"socket of its own kind", "socket of its own kind in a module"}, ""},
	{"network device intercepted (rx_handler, netdev_ops)", "private backdoors", "T1205", []string{"operations-table"}, []string{"network device intercepted", "network device by a copied table"}, ""},
	{"netfilter hook", "Reptile, Drovorub, nurupo, Skidmap", "T1205", []string{"code-pointer", "hidden-code", "hidden-module", "module-hook"}, []string{"a packet hook of a module that hides"}, ""},
	{"keyboard notifier, handler of the input layer, shared interrupt of the keyboard, line discipline, table of a terminal (keys)", "KoviD, maK_it, keysniffer", "T1056.001", []string{"code-pointer", "operations-table", "module-hook"}, []string{
		"notifier in code of an unknown owner", "keys of terminals to a module", "terminals by another's function", "a terminal by a copied table", "keys to the notifier of a module", "keys to the input handler of a module",
		"interrupts of the keyboard to a module too",
	}, ""},
	{"timer, work item, kernel thread in code of nobody", "Drovorub, Singularity", "T1014", []string{"code-pointer", "hidden-code", "hidden-module"}, []string{"a thread of a module that hides"}, ""},
	{"security hooks taken off or redirected (lists, static calls since 6.12)", "kernel exploits", "T1562.001", []string{"security-state", "code-pointer"}, []string{"security hook taken off"}, ""},
	{"SELinux, AppArmor, lockdown, auditing switched off", "Singularity, kernel exploits", "T1562.001", []string{"security-state"}, []string{"AppArmor switched off", "lockdown lowered", "auditing switched off"}, "a policy that allows everything"},
	{"enforcement of module signatures switched off", "kernel exploits", "T1553.006", []string{"taint"}, []string{"enforcement of signatures lowered", "unsigned module where signatures are compulsory"}, ""},
	{"process off the task list and other lists", "DKOM kits, FU and its kin", "T1014", []string{"hidden-process", "hidden-address-space"}, []string{"task off the list", "task off its parent's children", "task off its cgroup set", "task off its PID", "task off every list", "a process off the list", "running task off the list", "running task off its PID", "running task off every list"}, ""},
	{"process hidden by filtered output alone", "Diamorphine, Reptile, KoviD, LD_PRELOAD kits", "T1564", []string{"contradicted", "kernel-text", "preload"}, nil, "the processes themselves are plain in every view; what hides them is found by its hook"},
	{"socket out of the hash tables", "DKOM kits", "T1564", []string{"hidden-socket", "hidden-process"}, []string{"connection off its table", "process with a connection off the list"}, ""},
	{"root by overwritten credentials", "Diamorphine, KoviD, kernel exploits", "T1068", []string{"stolen-credentials"}, []string{"user overwritten", "credentials written", "every bit a capability", "capabilities beyond the permitted"}, ""},
	{"root by borrowed credentials (init_cred, another process)", "kernel exploits, Reptile", "T1068", []string{"stolen-credentials"}, []string{"credentials of the kernel", "credentials of process 1", "credentials borrowed", "credentials of the kernel, for a moment", "credentials of process 1, for a moment", "credentials that were not allocated"}, ""},
	{"root by commit_creds(prepare_kernel_cred())", "Reptile, PUMAKIT, Caraxes, Singularity", "T1068", []string{"stolen-credentials"}, []string{riseTrick, "credentials that the kernel made", "credentials that a module had made"}, "at one look alone, where no login came before it, and where the process ran another program before the next"},
	{
		"confinement taken off: seccomp, no_new_privs, bounding set, namespaces and root folder of another (switch_task_namespaces, set_fs_root)", "kernel exploits in containers", "T1611",
		[]string{"lifted-confinement", "stolen-credentials"},
		[]string{"filters of system calls switched off", "system calls past their filters", "filters of system calls taken off", "may gain privileges again", "bounding set grown", "namespaces of process 1", "root folder of process 1"},
		"at one look alone: filters that were taken off with all that says that they were there, no_new_privs and the bounding set",
	},
	{"modprobe_path, core_pattern, release_agent, binfmt_misc", "kernel and container exploits", "T1546", []string{"helper-path"}, []string{"modprobe in /tmp", "crashes into a hidden program", "power off by /var/tmp", "what the kernel runs", "modprobe in /opt"}, ""},
	{"BPF program that overwrites what processes read", "TripleCross, ebpfkit, bad-bpf, boopkit", "T1014", []string{"bpf-tampering"}, []string{"program that overwrites memory of processes", "program that has system calls fail"}, ""},
	{"BPF program or filter that runs something else (bpf_func)", "private kits", "T1562.001", []string{"bpf-tampering"}, []string{"filter of packets that runs something else"}, "the code of another program"},
	{"BPF program that hides itself", "ebpfkit, LinkPro", "T1564", []string{"hidden-bpf"}, []string{"program off the table", "program off the table, without an identifier", "symbol of a program off the list"}, ""},
	{"BPF for signals from the network (XDP, tc)", "boopkit, LinkPro, TripleCross", "T1205", nil, nil, "a fact in the views bpf and bpf_links: load balancers do the same"},
	{"socket filter that waits for a magic packet", "BPFDoor, Symbiote", "T1205.002", []string{"packet-filter-backdoor"}, []string{"filter with magic", "filter by window"}, "a program that compares in its own code"},
	{"promiscuous interface", "sniffers", "T1040", []string{"promiscuous"}, []string{"promiscuous by flag", "promiscuous without a request"}, ""},
	{"program in a memfd, or deleted", "BPFDoor, perfctl, PUMAKIT, memfd loaders", "T1620", []string{"fileless-program"}, []string{"program in a memfd", "script in a memfd", "deleted in /dev/shm", "deleted in /var/lib", "memfd named as runc's, by another"}, ""},
	{"program or library in /dev/shm or a hidden folder", "BPFDoor, perfctl, miners, Father", "T1564.001", []string{"strange-program", "preload"}, []string{"program in /dev/shm", "program in a hidden folder", "program in a hidden folder of /usr", "program in /run", "library of nearly all, out of sight"}, ""},
	{"script in /dev/shm or a hidden folder", "miners, droppers", "T1059", []string{"strange-program", "fileless-program"}, []string{"script in /dev/shm", "script in /dev/shm, by a relative path", "script in /dev/shm, that its arguments do not name", "script in a memfd"}, "a script that its interpreter has read and closed, and that its arguments do not name"},
	{"program whose file system was unmounted behind it", "private droppers", "T1564", []string{"detached-program"}, []string{"program in a file system that was unmounted"}, "a file system that is mounted elsewhere as well"},
	{"process hidden by a mount over its folder in /proc", "miners", "T1564.013", []string{"covered-process"}, []string{"mount over a process in /proc", "mount over a file of a process in /proc", "another namespace's /proc in place of /proc"}, ""},
	{"setuid copy of a shell, file with capabilities", "who was root once", "T1548.001", []string{"planted-setuid"}, []string{"setuid shell in /tmp", "setuid shell in /dev/shm", "setuid program that runs where others may write", "capabilities of a file in /tmp"}, "files that the kernel has not been asked for since boot, and files with capabilities that do not run"},
	{"kernel thread of a module that is named as a worker", "Drovorub, Singularity", "T1036.004", []string{"masquerade"}, []string{"a thread of a module that is named as a worker", "kernel thread that is named as a worker", "kernel thread without its function"}, ""},
	{"program that is named as a kernel thread", "BPFDoor, sedexp, perfctl", "T1036.004", []string{"masquerade"}, []string{"named as a worker of the kernel", "argument in brackets", "program in a memfd"}, "a name of another program"},
	{"code injected by ptrace, reflective loaders", "perfctl, many loaders", "T1055", []string{"injected-code"}, []string{"shellcode in a system call", "shellcode in a file of data", "code that rests", "library loaded by hand", "library in a memfd", "executable heap", "executable stack", "short code that rests", "code that rests in shared memory", "code that rests in a memfd, mapped twice"}, ""},
	{"code written over code of a file (/proc/PID/mem, ptrace)", "injectors, hooks of running services", "T1055.009", []string{"patched-program"}, []string{"code overwritten by /proc/PID/mem", "code of the program made writable"}, "pages that are swapped out"},
	{"hollowed process", "Melofee, packers", "T1055.012", []string{"hollowed-process", "injected-code"}, []string{"other file over the code", "memory over the code"}, ""},
	{"preloaded library by environment or /etc/ld.so.preload", "Father, Azazel, Jynx2, BEURK, Symbiote, OrBit, perfctl", "T1574.006", []string{"preload"}, []string{"preload in the environment", "ld.so.preload", "library of nearly all, out of sight", "library of nearly all, unasked"}, ""},
	{"dynamic linker patched to preload from elsewhere", "bedevil (bdvl), OrBit, Medusa", "T1574.006", []string{"preload"}, []string{"library of nearly all, unasked"}, ""},
	{"GOT or PLT of one process redirected", "TripleCross, injectors", "T1055", []string{"redirected-import", "injected-code", "preload"}, []string{"address of a function led to the heap"}, "a library that defines the same function"},
	{"shell with a socket as its terminal", "reverse and bind shells of all", "T1059", []string{"shell-on-socket"}, []string{"shell on a connection"}, "a shell behind a pseudo-terminal or a pipe"},
	{"io_uring in place of system calls", "Curing", "T1106", nil, nil, "sockets, files and rings are plain in the views sockets, files and io_uring: a ring alone is no finding"},
	{"network interface out of sight", "private backdoors", "T1564", []string{"hidden-interface"}, []string{"interface off the list", "interface off its index"}, "one that was taken out of all three ways"},
	{"mount out of sight", "private backdoors", "T1564", []string{"hidden-mount"}, []string{"mount off its namespace", "mount off its parent"}, ""},
	{"log of the kernel cleared", "clean-up scripts of all", "T1070.002", []string{"cleared-log"}, []string{"log cleared"}, ""},
	{"log of the kernel filtered for its readers", "Singularity", "T1070.002", []string{"contradicted"}, nil, "where nobody asks the guest: outsight dmesg shows what the ring holds"},
}

// TestCoverage: the page of what is covered names checks and tricks that there are, and says of
// each check whether one of the tricks proves it.
func TestCoverage(t *testing.T) {
	known := zooTricks()
	named := map[string]bool{}
	var b strings.Builder
	b.WriteString("# What intruders leave, and what finds it\n\n<!-- Written by go test ./check -run TestCoverage -update. -->\n\n")
	b.WriteString("Checks in **bold** are proven by a trick of the [zoo](zoo.md) that stands for the technique: they must find it. The others follow from what they compare. ")
	b.WriteString("Public rootkits are named for what is written of them; none is built or shipped here.\n\n")
	b.WriteString("| technique | seen in | ATT&CK | found by | tricks | missed |\n|---|---|---|---|---|---|\n")
	for _, c := range coverage {
		proven := map[string]bool{}
		for _, name := range c.tricks {
			want, ok := known[name]
			if !ok {
				t.Errorf("%s: there is no trick %q", c.what, name)
			}
			named[name] = true
			for _, id := range want {
				proven[strings.TrimPrefix(id, "?")] = true
			}
		}
		var by []string
		for _, id := range c.checks {
			if _, ok := check.Lookup(id); !ok {
				t.Errorf("%s: there is no check %q", c.what, id)
			}
			link := fmt.Sprintf("[%s](checks/%s.md)", id, id)
			if proven[id] {
				link = "**" + link + "**"
			}
			by = append(by, link)
		}
		if len(c.tricks) > 0 && !slices.ContainsFunc(c.checks, func(id string) bool { return proven[id] }) {
			t.Errorf("%s: none of its tricks proves one of its checks", c.what)
		}
		if len(by) == 0 && c.missed == "" {
			t.Errorf("%s: nothing finds it, and nothing says so", c.what)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", c.what, c.seen, technique(c.attack), strings.Join(by, ", "), strings.Join(c.tricks, "; "), c.missed)
	}
	for name, want := range known {
		if len(want) > 0 && !named[name] && !strings.HasPrefix(name, "healthy") {
			t.Logf("trick %q stands for no technique", name)
		}
	}
	if *update {
		if err := os.WriteFile(coveragePage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(coveragePage); err != nil || string(got) != b.String() {
		t.Errorf("%s is not what is covered (%v): go test ./check -run TestCoverage -update", coveragePage, err)
	}
}
