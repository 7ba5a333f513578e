package groundtruth

func init() {
	register(viewCase{view: "mounts", keys: []string{"mnt_ns", "mount_id"}, ignore: func(row map[string]any) bool {
		return row["type"] == "rootfs" || row["type"] == "nullfs" // below a process' own root: mountinfo leaves it out
	}})
}
