package main

import (
	"os"
	"strconv"
	"strings"
)

func init() { views["creds"] = credsView }

// capabilityNames are those of linux/capability.h, lower case, without CAP_.
var capabilityNames = strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap
linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio
sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease
audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf
checkpoint_restore`)

func credsView(emit func(any) error) error {
	return eachThread(func(dir string, pid, tid int) error {
		raw, err := os.ReadFile(dir + "/status")
		if err != nil {
			return nil //nolint:nilerr // it has gone
		}
		status := string(raw)
		caps := func(key string) []string {
			set, _ := strconv.ParseUint(statusField(status, key), 16, 64)
			names := []string{}
			for i, name := range capabilityNames {
				if set&(1<<i) != 0 {
					names = append(names, name)
				}
			}
			return names
		}
		uids, gids := list(statusField(status, "Uid")), list(statusField(status, "Gid"))
		if len(uids) != 4 || len(gids) != 4 {
			return nil
		}
		row := map[string]any{
			"pid": pid, "tid": tid,
			"uid": uids[0], "euid": uids[1], "suid": uids[2], "fsuid": uids[3],
			"gid": gids[0], "egid": gids[1], "sgid": gids[2], "fsgid": gids[3],
			"groups":    list(statusField(status, "Groups")),
			"effective": caps("CapEff"), "permitted": caps("CapPrm"), "inheritable": caps("CapInh"),
			"bounding": caps("CapBnd"), "ambient": caps("CapAmb"),
			"no_new_privs": statusField(status, "NoNewPrivs") == "1",
		}
		if mode := list(statusField(status, "Seccomp")); len(mode) > 0 { // CONFIG_SECCOMP
			row["seccomp"] = []string{"disabled", "strict", "filter"}[mode[0]]
		}
		if n := statusField(status, "Seccomp_filters"); n != "" {
			row["seccomp_filters"] = list(n)[0]
		}
		for file, key := range map[string]string{"loginuid": "login_uid", "sessionid": "session"} {
			b, err := os.ReadFile(dir + "/" + file)
			if err != nil {
				continue
			}
			n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
			row[key] = n
			if n == 1<<32-1 {
				row[key] = nil
			}
		}
		if link, err := os.Readlink(dir + "/ns/user"); err == nil {
			row["user_ns"] = inodeOf(link)
		}
		// The second is SELinux's where AppArmor is off.
		for _, file := range []string{"/attr/apparmor/current", "/attr/current"} {
			if label, err := os.ReadFile(dir + file); err == nil {
				row["label"] = strings.TrimSuffix(strings.TrimRight(string(label), "\x00"), "\n")
				break
			}
		}
		return emit(row)
	})
}

// inodeOf is the number in a link such as "user:[4026531837]".
func inodeOf(link string) uint64 {
	_, rest, _ := strings.Cut(link, "[")
	n, _ := strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 64)
	return n
}
