# make demo   sets up, trains on a small cast (drawn if there is none), tests, predicts,
#             learns to draw one of them, exports, and answers as a server
# make test   sets up, runs the suite
# make lint   sets up, checks format and style

PYTHON ?= python3
VENV ?= .venv
# Where the demo keeps everything; DATA may name a folder of your own characters.
DEMO ?= demo
DATA ?= $(DEMO)/characters
# cpu or gpu: which TensorFlow wheel to install.
TENSORFLOW ?= cpu
# ImageNet weights: a file, imagenet, or none. By itself the demo takes what Keras has
# downloaded before, and otherwise starts from random weights.
KERAS_MODELS = $(if $(KERAS_HOME),$(KERAS_HOME),$(HOME)/.keras)/models
PRETRAINED = $(wildcard $(KERAS_MODELS)/efficientnetv2-b0_notop.h5)
WEIGHTS ?= $(if $(PRETRAINED),imagenet,none)
PRETRAINED_VGG = $(wildcard $(KERAS_MODELS)/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5)
VGG_WEIGHTS ?= $(if $(PRETRAINED_VGG),imagenet,none)
# The character to draw: a name, or a number.
CHARACTER ?= 0
# Of the demo's server.
PORT ?= 8611
# What to name: a few of the demo's own pictures, or all of yours.
SAMPLES = $(if $(filter $(DEMO)/characters,$(DATA)),'$(DATA)/*/0001.*' '$(DATA)/*/0002.*','$(DATA)')
DRAWINGS := $(DEMO)/drawings/$(shell date +%Y%m%d-%H%M%S)

# What the tests of serving speak. It asks for the package tensorflow, which would come
# beside tensorflow-cpu with the same modules: so it is installed without what it asks for.
SERVING_API = tensorflow-serving-api==2.21.*

BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test lint clean

$(READY): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(TENSORFLOW),test]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps '$(SERVING_API)'
	touch $(READY)

demo: $(READY)
	@test -d '$(DATA)' || $(BIN)/anime-tf data demo --out '$(DATA)' --characters 5 --count 120
ifeq ($(WEIGHTS),none)
	@echo '*** No pretrained weights on this machine: the demo learns from random ones.'
	@echo '*** That is enough for its simple drawings, not for real pictures: for those'
	@echo '*** let anime-tf train download the ImageNet weights, its default.'
endif
	$(BIN)/anime-tf data check --data-dir '$(DATA)'
	$(BIN)/anime-tf train --data-dir '$(DATA)' --out '$(DEMO)/model' --overwrite \
	    --backbone efficientnetv2b0 --weights $(WEIGHTS) --image-size 64 --batch-size 16 \
	    --epochs 14 --head-epochs 20 --time-budget 5m
	$(BIN)/anime-tf predict --model '$(DEMO)/model' $(SAMPLES)
	$(BIN)/anime-tf draw --target-class '$(CHARACTER)' --classifier '$(DEMO)/model' \
	    --vgg-weights $(VGG_WEIGHTS) --time-budget 4m --preview-steps 40 \
	    --out '$(DEMO)/drawing' --overwrite
	$(BIN)/anime-tf generate --model '$(DEMO)/drawing' --count 16 --out '$(DRAWINGS)'
	$(BIN)/anime-tf export --model '$(DEMO)/model' --out '$(DEMO)/exported'
	$(BIN)/anime-tf serve --classifier '$(DEMO)/exported' --port $(PORT) & server=$$!; \
	trap "kill $$server" EXIT; tries=0; \
	until $(BIN)/anime-tf predict --server http://127.0.0.1:$(PORT) $(SAMPLES) \
	    2>'$(DEMO)/client.log'; \
	do tries=$$((tries + 1)); \
	kill -0 $$server && test $$tries -lt 60 || { cat '$(DEMO)/client.log'; exit 1; }; \
	sleep 1; done
	@echo 'Recognise: $(DEMO)/model/report.html'
	@echo 'Draw:      $(DEMO)/drawing/report.html, $(DRAWINGS)/grid.png'

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal --max-worker-restart 0

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build *.egg-info
