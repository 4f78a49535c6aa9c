"""The part of Caffe's ``caffe.proto`` that a network of AlexNet's family needs: names and numbers.

Caffe wrote three forms of a layer. Here are the newest (field 100, types by name) and the one
before it (field 2, types by number), in which BVLC's reference networks were published. The first
one, a layer inside of a layer, is told apart and refused.
"""

from alexnet.interop.protobuf import Schema

SHAPE: Schema = {1: ("dim", "int")}
BLOB: Schema = {
    1: ("num", "int"), 2: ("channels", "int"), 3: ("height", "int"), 4: ("width", "int"),
    5: ("data", "floats"), 7: ("shape", SHAPE), 8: ("double_data", "doubles"),
}  # fmt: skip
TRANSFORM: Schema = {
    1: ("scale", "float"), 3: ("crop_size", "int"), 4: ("mean_file", "text"),
    5: ("mean_value", "floats"),
}  # fmt: skip
DATA: Schema = {2: ("scale", "float"), 3: ("mean_file", "text"), 5: ("crop_size", "int")}
CONVOLUTION: Schema = {
    1: ("num_output", "int"), 2: ("bias_term", "int"), 3: ("pad", "int"), 4: ("kernel_size", "int"),
    5: ("group", "int"), 6: ("stride", "int"), 9: ("pad_h", "int"), 10: ("pad_w", "int"),
    11: ("kernel_h", "int"), 12: ("kernel_w", "int"), 13: ("stride_h", "int"),
    14: ("stride_w", "int"), 18: ("dilation", "int"),
}  # fmt: skip
DROPOUT: Schema = {1: ("dropout_ratio", "float")}
INNER_PRODUCT: Schema = {
    1: ("num_output", "int"), 2: ("bias_term", "int"), 5: ("axis", "int"), 6: ("transpose", "int"),
}  # fmt: skip
LRN: Schema = {
    1: ("local_size", "int"), 2: ("alpha", "float"), 3: ("beta", "float"),
    4: ("norm_region", "int"), 5: ("k", "float"),
}  # fmt: skip
POOLING: Schema = {
    1: ("pool", "int"), 2: ("kernel_size", "int"), 3: ("stride", "int"), 4: ("pad", "int"),
    5: ("kernel_h", "int"), 6: ("kernel_w", "int"), 7: ("stride_h", "int"), 8: ("stride_w", "int"),
    9: ("pad_h", "int"), 10: ("pad_w", "int"), 12: ("global_pooling", "int"),
    13: ("round_mode", "int"),
}  # fmt: skip
RELU: Schema = {1: ("negative_slope", "float")}
RULE: Schema = {1: ("phase", "int")}
LAYER: Schema = {
    1: ("name", "text"), 2: ("type", "text"), 3: ("bottom", "text"), 4: ("top", "text"),
    7: ("blobs", BLOB), 8: ("include", RULE), 100: ("transform_param", TRANSFORM),
    106: ("convolution_param", CONVOLUTION), 107: ("data_param", DATA),
    108: ("dropout_param", DROPOUT), 117: ("inner_product_param", INNER_PRODUCT),
    118: ("lrn_param", LRN), 121: ("pooling_param", POOLING), 123: ("relu_param", RELU),
    143: ("input_param", {1: ("shape", SHAPE)}),
}  # fmt: skip
OLD_LAYER: Schema = {
    1: ("layer", {}), 2: ("bottom", "text"), 3: ("top", "text"), 4: ("name", "text"),
    5: ("type", "int"), 6: ("blobs", BLOB), 10: ("convolution_param", CONVOLUTION),
    11: ("data_param", DATA), 12: ("dropout_param", DROPOUT),
    17: ("inner_product_param", INNER_PRODUCT), 18: ("lrn_param", LRN),
    19: ("pooling_param", POOLING), 30: ("relu_param", RELU), 32: ("include", RULE),
    36: ("transform_param", TRANSFORM),
}  # fmt: skip
NET: Schema = {
    1: ("name", "text"), 2: ("layers", OLD_LAYER), 3: ("input", "text"), 4: ("input_dim", "int"),
    8: ("input_shape", SHAPE), 100: ("layer", LAYER),
}  # fmt: skip

TYPES = {  # of the form by number, as the newest form calls them
    1: "Accuracy", 4: "Convolution", 5: "Data", 6: "Dropout", 8: "Flatten", 12: "ImageData",
    14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU", 19: "Sigmoid", 20: "Softmax",
    21: "SoftmaxWithLoss", 22: "Split", 23: "TanH", 24: "WindowData", 29: "MemoryData",
    32: "DummyData", 36: "Silence",
}  # fmt: skip
OLD_WORDS = {  # how a .prototxt of the older form spells them
    "ACCURACY": 1, "CONVOLUTION": 4, "DATA": 5, "DROPOUT": 6, "FLATTEN": 8, "IMAGE_DATA": 12,
    "INNER_PRODUCT": 14, "LRN": 15, "POOLING": 17, "RELU": 18, "SIGMOID": 19, "SOFTMAX": 20,
    "SOFTMAX_LOSS": 21, "SPLIT": 22, "TANH": 23, "WINDOW_DATA": 24, "MEMORY_DATA": 29,
    "DUMMY_DATA": 32, "SILENCE": 36,
}  # fmt: skip
WORDS = {
    **OLD_WORDS, "true": 1, "false": 0, "TRAIN": 0, "TEST": 1, "MAX": 0, "AVE": 1, "STOCHASTIC": 2,
    "ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1, "CEIL": 0, "FLOOR": 1,
}  # fmt: skip
