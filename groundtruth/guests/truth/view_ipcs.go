package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func init() { views["ipcs"] = tellIPCs }

// tellIPCs reports the objects of this namespace, by /proc/sysvipc and the file system
// of message queues.
func tellIPCs(emit func(any) error) error {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/ipc", &ns); err != nil {
		return err
	}
	stamp := func(seconds int64) any {
		if seconds == 0 {
			return nil
		}
		return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
	}
	process := func(pid int64) any {
		if pid == 0 {
			return nil
		}
		return pid
	}
	for kind, id := range map[string]string{"shm": "shmid", "sem": "semid", "msg": "msqid"} {
		var names []string
		err := lines("/proc/sysvipc/"+kind, func(line string) error {
			if names == nil {
				names = strings.Fields(line)
				return nil
			}
			n := map[string]int64{}
			for i, word := range strings.Fields(line) {
				base := 10
				if names[i] == "perms" {
					base = 8
				}
				v, err := strconv.ParseInt(word, base, 64)
				if err != nil {
					return fmt.Errorf("%s: %w", names[i], err)
				}
				n[names[i]] = v
			}
			row := map[string]any{
				"namespace": ns.Ino, "kind": kind, "id": n[id], "key": n["key"], "permissions": n["perms"], "name": nil,
				"uid": n["uid"], "gid": n["gid"], "creator_uid": n["cuid"], "creator_gid": n["cgid"], "changed": stamp(n["ctime"]),
			}
			switch kind {
			case "shm":
				row["size"], row["count"], row["creator"], row["last"] = n["size"], n["nattch"], process(n["cpid"]), process(n["lpid"])
				row["attached"], row["detached"] = stamp(n["atime"]), stamp(n["dtime"])
			case "sem":
				row["size"], row["count"] = nil, n["nsems"]
			case "msg":
				row["size"], row["count"], row["last"], row["receiver"] = n["cbytes"], n["qnum"], process(n["lspid"]), process(n["lrpid"])
				row["attached"], row["detached"] = stamp(n["stime"]), stamp(n["rtime"])
			}
			return emit(row)
		})
		if err != nil {
			return err
		}
	}
	return tellQueues(ns.Ino, emit)
}

func tellQueues(ns uint64, emit func(any) error) error {
	const dir = "/tmp/mqueue"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("mqueue", dir, "mqueue", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount mqueue: %w", err)
	}
	defer func() { _ = unix.Unmount(dir, 0) }()
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		b, err := os.ReadFile(dir + "/" + e.Name())
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(dir+"/"+e.Name(), &st); err != nil {
			return err
		}
		var size uint64
		if _, err := fmt.Sscanf(string(b), "QSIZE:%d", &size); err != nil {
			return fmt.Errorf("%q: %w", b, err)
		}
		if err := emit(map[string]any{
			"namespace": ns, "kind": "mqueue", "id": nil, "key": nil, "name": e.Name(), "permissions": st.Mode & 0o7777,
			"uid": st.Uid, "gid": st.Gid, "size": size,
		}); err != nil {
			return err
		}
	}
	return nil
}
