package groundtruth

func init() { register(viewCase{view: "dmesg", keys: []string{"seq"}}) }
