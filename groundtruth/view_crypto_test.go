package groundtruth

func init() { register(viewCase{view: "crypto"}) }
