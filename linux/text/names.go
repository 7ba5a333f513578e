package text

import (
	"strings"

	"github.com/outsight-vmi/outsight/kernel/image"
)

// tracerCall are the calls in ftrace's entry code that it writes itself, beside the kinds
// that the image has tables of.
const tracerCall image.Kind = 255

// names are what the image calls the functions that patched code may lead to, as linked.
type names struct {
	returns map[uint64]bool  // return thunks
	thunks  map[uint64]uint8 // thunks for an indirect branch, to the register's number
	tracers map[uint64]bool  // what ftrace's entry code may call
	nothing map[uint64]bool  // functions of pv_ops that do nothing

	fentry, ftraceCaller, ftraceRegsCaller, return0, nop, bug, pvOps, warnTrap, unlock uint64

	// Of call depth tracking (retbleed=stuff, 6.2): whether it is on, and the code that
	// counts a call, which is written before each function.
	thunksOn, thunk uint64
	uniproc         uint64 // of whether lock prefixes were taken out; 0 if that is not kept
	thunkSize       uint64

	tracerSites []image.Site
	vars        map[string]uint64 // variables that hold a runtime constant
}

var registers = []string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}

// Return thunks, in all versions up to 7.2 (arch/x86/lib/retpoline.S).
var returnThunks = []string{
	"__x86_return_thunk", "retbleed_return_thunk", "zen_untrain_ret", "srso_return_thunk", "srso_alias_return_thunk",
	"srso_safe_ret", "call_depth_return_thunk", "__x86_return_skl", "its_return_thunk",
}

var tracerNames = []string{
	"ftrace_stub", "ftrace_stub_direct_tramp", "ftrace_ops_list_func", "arch_ftrace_ops_list_func", "ftrace_ops_no_ops", "ftrace_ops_assist_func", "ftrace_pid_func",
	"ftrace_graph_caller", "ftrace_graph_func", "function_trace_call", "function_stack_trace_call", "function_no_repeats_trace_call", "function_stack_no_repeats_trace_call",
}

// Functions of pv_ops for which nothing is called.
var nothingNames = []string{"_paravirt_nop", "paravirt_nop", "nop_func", "x86_nop"}

// tracerLabels are places in ftrace's entry code (arch/x86/kernel/ftrace_64.S).
var tracerLabels = []string{"ftrace_call", "ftrace_regs_call", "ftrace_graph_call"}

func namesOf(im *image.Image) (n names, err error) {
	all := []string{"__fentry__", "ftrace_caller", "ftrace_regs_caller", "__static_call_return0", "__static_call_nop", "BUG_func", "paravirt_BUG", "pv_ops", "__WARN_trap", nativeUnlock, "thunks_initialized", "uniproc_patched", "skl_call_thunk_template", "skl_call_thunk_tail"}
	for _, r := range registers {
		for _, kind := range thunkKinds {
			all = append(all, kind+r)
		}
	}
	for _, list := range [][]string{returnThunks, tracerNames, nothingNames, tracerLabels} {
		all = append(all, list...)
	}
	variables := map[string]string{}
	for _, s := range im.Sections() {
		if v, size := image.RuntimeSection(s.Name); size != 0 {
			variables[v] = v
			all = append(all, v)
		}
	}
	at, err := im.Lookup(all...)
	if err != nil {
		return n, err
	}
	set := func(list []string) map[uint64]bool {
		m := map[uint64]bool{}
		for _, name := range list {
			if a, ok := at[name]; ok {
				m[a] = true
			}
		}
		return m
	}
	n = names{
		returns: set(returnThunks), tracers: set(tracerNames), nothing: set(nothingNames), thunks: map[uint64]uint8{}, vars: map[string]uint64{},
		fentry: at["__fentry__"], ftraceCaller: at["ftrace_caller"], ftraceRegsCaller: at["ftrace_regs_caller"],
		return0: at["__static_call_return0"], nop: at["__static_call_nop"], bug: at["BUG_func"], pvOps: at["pv_ops"], warnTrap: at["__WARN_trap"], unlock: at[nativeUnlock],
	}
	if a, end := at["skl_call_thunk_template"], at["skl_call_thunk_tail"]; end > a && end-a <= maxThunk {
		n.thunksOn, n.thunk, n.thunkSize = at["thunks_initialized"], a, end-a
	}
	n.uniproc = at["uniproc_patched"]
	for _, s := range im.Sections() { // it is gone after boot in 7.2
		if strings.HasPrefix(s.Name, ".init") && n.uniproc >= s.Addr && n.uniproc < s.End() {
			n.uniproc = 0
		}
	}
	if n.bug == 0 {
		n.bug = at["paravirt_BUG"]
	}
	for i, r := range registers {
		for _, kind := range thunkKinds {
			if a, ok := at[kind+r]; ok {
				n.thunks[a] = uint8(i)
			}
		}
	}
	for v := range variables {
		if a, ok := at[v]; ok {
			n.vars[v] = a
		}
	}
	for _, l := range tracerLabels {
		if a, ok := at[l]; ok {
			n.tracerSites = append(n.tracerSites, image.Site{Addr: a, Len: 5, Kind: tracerCall})
		}
	}
	return n, nil
}

// thunkKinds are the thunks for indirect branches: the compiler's, those that count calls
// (6.2), and those against indirect target selection (6.15).
var thunkKinds = []string{"__x86_indirect_thunk_", "__x86_indirect_call_thunk_", "__x86_indirect_jump_thunk_", "__x86_indirect_its_thunk_"}
