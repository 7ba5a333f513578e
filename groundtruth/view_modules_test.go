package groundtruth

func init() { register(viewCase{view: "modules"}) }
