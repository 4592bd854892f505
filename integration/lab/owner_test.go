package lab_test

const ownerEnv = "DCOS_OVERLAY_LAB_OWNER"

func ownLab() {}
