package main

import (
	"os"
	"strconv"
	"strings"
)

func init() {
	views["threads"] = threadsView
	views["kthreads"] = kthreadsView
	views["env"] = envView
}

var policies = []string{"other", "fifo", "rr", "batch", "iso", "idle", "deadline", "ext"}

// eachThread calls f for every thread; one that has gone meanwhile is left out.
func eachThread(f func(dir string, pid, tid int) error) error {
	pids, err := numbers("/proc")
	if err != nil {
		return err
	}
	for _, pid := range pids {
		tasks := "/proc/" + strconv.Itoa(pid) + "/task"
		tids, err := numbers(tasks)
		if err != nil {
			continue
		}
		for _, tid := range tids {
			if err := f(tasks+"/"+strconv.Itoa(tid), pid, tid); err != nil {
				return err
			}
		}
	}
	return nil
}

// statFields are the fields of a stat file after comm: field 3 is the first.
func statFields(stat []byte) []string {
	return strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
}

// statusField is the value of "Key:" in a status file.
func statusField(status, key string) string {
	_, rest, ok := strings.Cut(status, "\n"+key+":")
	if !ok {
		return ""
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

func schedule(dir string, pid, tid int) map[string]any {
	p, err := process(dir, pid, tid)
	if err != nil {
		return nil
	}
	stat, err1 := os.ReadFile(dir + "/stat")
	status, err2 := os.ReadFile(dir + "/status")
	if err1 != nil || err2 != nil || len(stat) == 0 {
		return nil
	}
	f := statFields(stat)
	if len(f) < 39 {
		return nil
	}
	number := func(field int) int64 { n, _ := strconv.ParseInt(f[field-3], 10, 64); return n }
	row := map[string]any{
		"pid": pid, "tid": tid, "state": p.State, "kernel_thread": p.KernelThread,
		"priority": number(18), "nice": number(19), "rt_priority": number(40),
		"policy":       policies[min(int(number(41)), len(policies)-1)],
		"cpus_allowed": statusField(string(status), "Cpus_allowed_list"),
	}
	if comm, err := os.ReadFile(dir + "/comm"); err == nil && !p.KernelThread {
		row["comm"] = strings.TrimSuffix(string(comm), "\n")
	}
	return row
}

func threadsView(emit func(any) error) error {
	return eachThread(func(dir string, pid, tid int) error {
		if row := schedule(dir, pid, tid); row != nil {
			return emit(row)
		}
		return nil
	})
}

// kthreadsView reports the kernel's threads, with the pool that a worker's name shows.
func kthreadsView(emit func(any) error) error {
	return eachThread(func(dir string, pid, tid int) error {
		row := schedule(dir, pid, tid)
		if row == nil || row["kernel_thread"] != true {
			return nil
		}
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil {
			return nil //nolint:nilerr // it has gone
		}
		name := strings.TrimSuffix(string(comm), "\n")
		out := map[string]any{"pid": tid}
		for _, key := range []string{"state", "cpus_allowed", "nice", "policy"} {
			out[key] = row[key]
		}
		short := name
		if i := strings.IndexAny(name, "-+"); i > 0 && strings.HasPrefix(name, "kworker/") && !strings.HasPrefix(name, "kworker/R") {
			short = name[:i]
		}
		switch {
		case tid == 2:
			delete(out, "function_owner") // kthreadd runs nothing that it was told to
		case strings.HasPrefix(short, "kworker/R"):
			out["rescuer"], out["function_symbol"] = true, "rescuer_thread"
		case strings.HasPrefix(short, "kworker/u"):
			out["pool_cpu"], out["function_symbol"] = -1, "worker_thread"
			id, _, _ := strings.Cut(short[len("kworker/u"):], ":")
			out["pool"], _ = strconv.Atoi(id)
		case strings.HasPrefix(short, "kworker/"):
			cpu, _, _ := strings.Cut(short[len("kworker/"):], ":")
			out["pool_cpu"], _ = strconv.Atoi(cpu)
			out["function_symbol"] = "worker_thread"
		case strings.HasPrefix(short, "ksoftirqd/"), strings.HasPrefix(short, "migration/"):
			out["function_symbol"] = "smpboot_thread_fn"
		case short == "khugepaged", short == "kauditd", short == "kcompactd0":
			out["function_symbol"] = strings.TrimSuffix(short, "0")
			if short == "kauditd" {
				out["function_symbol"] = "kauditd_thread"
			}
		}
		return emit(out)
	})
}

func envView(emit func(any) error) error {
	pids, err := numbers("/proc")
	if err != nil {
		return err
	}
	for _, pid := range pids {
		env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil {
			continue
		}
		index := 0
		for len(env) > 0 {
			one, rest, _ := strings.Cut(string(env), "\x00")
			env = []byte(rest)
			if one == "" {
				continue
			}
			name, value, set := strings.Cut(one, "=")
			row := map[string]any{"pid": pid, "index": index, "name": procsText(name), "value": procsText(value)}
			if !set {
				row["value"] = nil
			}
			index++
			if err := emit(row); err != nil {
				return err
			}
		}
	}
	return nil
}
