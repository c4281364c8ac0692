"""What goes over the wire: requests, and the answers to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from provenn.api.batch_schemas import BatchRequest, BatchSummary, File
from provenn.api.jobs.model import State
from provenn.api.jobs.said import Enclosure
from provenn.api.pattern_schemas import Patterns, PatternsRequest, Radius, RadiusRequest
from provenn.api.tightness_schemas import Tightness, TightnessRequest
from provenn.api.wire import Digest, Label, Number, Range, Request, Response, Text, as_file


class Inputs(Request):
    """Robustness of many inputs at many radii: one item an input and radius."""

    inputs: list[list[Number]] = Field(min_length=1, description="each input flat, in C order")
    labels: list[Label] = Field(description="the class that must win, one an input")
    epsilons: list[Annotated[Number, Field(ge=0)]] = Field(min_length=1, description="radii")
    norm: Literal["inf", "2", "1"] = "inf"
    clip: Range | None = Field(None, description="range every input coordinate stays in, e.g. [0, 1]")
    target: Label | None = Field(None, description="the one class that must not win; null: any other than the label")

    @model_validator(mode="after")
    def _one_label_an_input(self) -> Self:
        if len(self.labels) != len(self.inputs):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.labels)} labels")
        return self


class RegionRequest(Request):
    """The inputs around one."""

    input: list[Number] = Field(min_length=1, description="the centre, flat, in C order")
    epsilon: Annotated[Number, Field(ge=0)] = Field(description="the radius")
    norm: Literal["inf", "2", "1"] = "inf"
    clip: Range | None = Field(None, description="range every input coordinate stays in, e.g. [0, 1]")


class LipschitzRequest(Request):
    """How much the outputs can change per change of the inputs."""

    norm: Literal["2", "inf", "1"] = Field("2", description="what measures inputs")
    output_norm: Literal["2", "inf", "1", "each"] | None = Field(
        None, description="what measures outputs, or each row by itself; null: each for pairs, 2 otherwise"
    )
    rows: Text = Field("all", description="outputs: all, 3, 0,2 or 3-5; differences of outputs: pairs, pairs:3")
    scale: list[Annotated[Number, Field(gt=0)]] | None = Field(
        None, description="weights of the inputs' coordinates, flat; null: all 1"
    )
    region: RegionRequest | None = Field(None, description="null: everywhere")
    solver: Literal["clarabel", "scs", "mosek"] | None = Field(None, description="of method lipsdp-conic")


class DerivativeRequest(Request):
    """Of which outputs, and over which inputs: around one input, or all that a tabular model may get."""

    rows: Text = Field("all", description="outputs: all, 3, 0,2 or 3-5; differences of outputs: pairs, pairs:3")
    region: RegionRequest | None = Field(None, description="the inputs around one; this or domain")
    domain: Text | dict[str, Any] | None = Field(
        None,
        description="features in the order of the network's inputs, as text (keeps every digit) or as an object: "
        '{"features": [..]}, each with a name and one of "range": [low, high], "values": [numbers], "value": number, '
        '"one_hot": number of categories',
    )
    fixed: dict[Text, Text | Number] = Field(
        {}, description="features of the domain that are held: name to value, or to a category's number"
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.region is None) == (self.domain is None):
            raise ValueError("give either region or domain")
        if self.fixed and self.domain is None:
            raise ValueError("fixed holds features of a domain: give domain")
        self.domain_text()  # a ValueError if the object holds what JSON does not
        return self

    def domain_text(self) -> bytes:
        """The domain as the bytes of a file."""
        return as_file(self.domain)


class MonotonicityRequest(DerivativeRequest):
    """Whether outputs only rise, or only fall, with some features."""

    features: list[Text | Label] = Field(
        min_length=1,
        description="names of the domain's features, numbers of inputs (flat, from 0), spans as 3-5, or all",
    )
    expect: Literal["increasing", "decreasing"] | None = Field(
        None, description="what every dependence has to be for the verdict verified; null: either"
    )


class JacobianRequest(DerivativeRequest):
    """Between which numbers every output's derivative by every input lies: over one region.

    A domain has to have one combination of categories: `fixed` holds the others.
    """


class BudgetRequest(Request):
    """How long a job may take."""

    seconds: Annotated[Number, Field(gt=0)] = Field(60.0, description="wall-clock seconds for the whole job")


QUESTIONS = (
    "specification", "inputs", "batch", "lipschitz", "monotonicity", "jacobian", "tightness", "patterns", "radius",
)  # fmt: skip
"""What a job may ask: one of these."""


class JobRequest(Request):
    """What to certify or measure of a model: a specification, inputs, Lipschitz constants, derivatives, and so on."""

    model: Digest = Field(description="the model's id, as POST /v1/models returned it")
    specification: Text | dict[str, Any] | None = Field(
        None,
        description="VNN-LIB text, or a document of a kind of GET /v1/schemas, as text in JSON or TOML (keeps every "
        "digit) or as an object",
    )
    inputs: Inputs | None = None
    lipschitz: LipschitzRequest | None = None
    monotonicity: MonotonicityRequest | None = None
    jacobian: JacobianRequest | None = None
    tightness: TightnessRequest | None = None
    patterns: PatternsRequest | None = None
    radius: RadiusRequest | None = None
    batch: BatchRequest | None = None
    method: Text = Field(
        "auto",
        description="a name of GET /v1/backends; for inputs also lipschitz; for lipschitz one of auto, norm-product, "
        "eclipse-fast, lipsdp-layer, lipsdp-neuron, lipsdp-channel, lipsdp-conic, crown, alpha-crown, recurjac, ibp, "
        "bab; for monotonicity and jacobian one of crown, alpha-crown, recurjac, ibp, bab, and auto, which is bab",
    )
    budget: BudgetRequest = Field(default_factory=lambda: BudgetRequest(seconds=60.0))
    seed: Annotated[int, Field(strict=True, ge=0, lt=1 << 32)] = 0
    certificates: Annotated[bool, Field(strict=True)] = Field(True, description="make and check a certificate an item")
    semantics: Literal["real", "float32"] = Field(
        "real", description="what is proved: the network in real arithmetic, or all its float32 executions in any order"
    )
    priority: Annotated[int, Field(strict=True, ge=-10, le=10)] = Field(
        0, description="larger first, then older first; above 0 needs the scope admin"
    )
    cache: Annotated[bool, Field(strict=True)] = Field(
        True, description="answer at once where the project has checked certificates that answer the same question"
    )

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if sum(getattr(self, name) is not None for name in QUESTIONS) != 1:
            raise ValueError(f"give either {' or '.join(QUESTIONS)}")
        measured = self.tightness is not None or self.patterns is not None
        if measured and (self.method != "auto" or self.semantics != "real"):
            raise ValueError(f"{self.kind} is measured in one way: leave out method and semantics")
        if self.semantics == "float32" and (self.lipschitz is not None or self.method == "lipschitz"):
            raise ValueError("Lipschitz constants are about real arithmetic: leave out semantics float32")
        if self.semantics == "float32" and self.derivatives is not None:
            raise ValueError("derivatives are about real arithmetic: leave out semantics float32")
        if self.method == "lipschitz" and (self.inputs is None or self.inputs.norm == "1"):
            raise ValueError("method lipschitz is for inputs, in the norms 2 and inf")
        if self.semantics == "float32" and not self.certificates:
            raise ValueError("semantics float32 needs certificates: nothing else proves float32 executions")
        self.specification_text()  # a ValueError if the object holds what JSON does not
        return self

    def specification_text(self) -> bytes:
        """The specification as the bytes a certificate is about."""
        return as_file(self.specification)

    @property
    def derivatives(self) -> DerivativeRequest | None:
        """What it asks of derivatives, if it does."""
        return self.monotonicity or self.jacobian

    @property
    def dataset(self) -> str | None:
        """The dataset that it is about, if it is about one."""
        return None if (asked := self.batch or self.patterns) is None else asked.dataset

    @property
    def kind(self) -> str:
        """The one question's name."""
        return next(name for name in QUESTIONS if getattr(self, name) is not None)

    @property
    def items(self) -> int:
        """How many verdicts it asks for."""
        return 1 if self.inputs is None else len(self.inputs.inputs) * len(self.inputs.epsilons)


class Model(Response):
    """An admitted network."""

    id: str = Field(description="SHA-256 of the canonical file, which GET /v1/models/{id}/file returns")
    filename: str
    format: str = Field("onnx", description="of the upload: onnx, onnx-bundle, provenn-network/1, pt2, ...")
    source_digest: str = Field("", description="SHA-256 of the upload")
    bytes: int = Field(description="of the canonical file")
    created_at: AwareDatetime
    input_shape: list[int] = Field(description="of one input, without the batch axis")
    output_shape: list[int]
    parameters: int
    neurons: int = Field(description="values of nonlinear nodes")
    nodes: int
    opset: int
    producer: str


class Layer(Response):
    """One node of a network."""

    name: str
    op: str
    shape: list[int]
    parameters: int
    inputs: list[str]


class ModelDetail(Model):
    """An admitted network, node by node."""

    layers: list[Layer]


class Models(Response):
    """A page of models, newest first."""

    items: list[Model]
    next: str | None = Field(description="cursor of the next page; null at the end")


class Progress(Response):
    """How far a job is."""

    done: int
    total: int
    phase: str
    fraction: float = Field(0.0, description="of all items, and of the part of one that is decided: from 0 to 1")
    bound: float | None = Field(None, description="the best bound so far, of what is being searched")
    domains: int | None = Field(None, description="subdomains that branch and bound has visited")
    bounds: list[Enclosure] | None = Field(
        None, description="of every output, the loosest first; about one region alone"
    )


class Counterexample(Response):
    """An input of the region and the network's unsafe output, as the independent executor computed it."""

    input: list[float]
    output: list[float]
    original: list[float] | None = Field(
        None, description="of parameters of a perturbation: the input, such as an image, that they make"
    )


class Lipschitz(Response):
    """A Lipschitz constant: |C (f(x) - f(y))|_output_norm <= upper |scale * (x - y)|_norm."""

    upper: float | list[float] | None = Field(description="proved; a list, one number a row, for output_norm each")
    lower: float | list[float] | None = Field(description="what a pair of inputs shows")
    gap: float | None = Field(description="share of upper by which the method's optimum may lie below it")
    norm: str
    output_norm: str
    rows: str
    well_posed: bool | None = Field(description="of implicit layers: whether one fixed point everywhere is proved")


class Change(Response):
    """Two inputs, flat, of which the second is larger in one coordinate, and by what the row of outputs changes."""

    first: list[float]
    second: list[float]
    change: float = Field(description="as onnxruntime computed the outputs")


class Dependence(Response):
    """How one row of outputs depends on one input: a rise is meant in the weak sense."""

    row: int = Field(description="which of the rows that were asked about, from 0")
    column: int = Field(description="number of the input, flat")
    feature: str = Field(description="its name; without a domain its number")
    trend: Literal["increasing", "decreasing", "constant", "neither", "unknown"] = Field(
        description="the first three are proved for all inputs; neither: shown by fall and rise"
    )
    lower: float | None = Field(description="a proved bound of the derivative from below; null: none")
    upper: float | None = Field(description="a proved bound of the derivative from above; null: none")
    fall: Change | None = Field(description="a pair between which the row falls, where one was found")
    rise: Change | None = Field(description="a pair between which the row rises, where one was found")


class Jacobian(Response):
    """The derivatives of rows of outputs by inputs over a region: each a list a row, with a number an input, flat."""

    rows: str
    lower: list[list[float]] | None = Field(description="proved; null unless verified")
    upper: list[list[float]] | None = Field(description="proved; null unless verified")
    seen_lower: list[list[float | None]] = Field(
        description="the least derivative at points of the region, in float64, and a guess of its rounding added: it "
        "may lie that much above seen_upper; null: no number"
    )
    seen_upper: list[list[float | None]] = Field(
        description="the largest derivative at points of the region, in float64, less a guess of its rounding"
    )


class Item(Response):
    """The verdict about one input and radius, or about all that the job asks."""

    index: int
    input: int | None
    epsilon: float | None
    verdict: str
    method: str
    margin: float | None = Field(description="largest proved lower bound; positive means verified")
    seconds: float
    assurance: str | None = Field(description="checked, deployed, computed, replayed, vacuous or null")
    semantics: str = Field("real", description="real, or float32 if all executions in that format were asked about")
    reason: str | None
    warnings: list[str] = Field([], description="which of the property's sets of inputs are empty")
    certificate: str | None = Field(description="id for GET /v1/certificates/{id}")
    counterexample: Counterexample | None
    lipschitz: Lipschitz | None = Field(None, description="of a job about a Lipschitz constant")
    monotonicity: list[Dependence] | None = Field(
        None, description="of a job about monotonicity: every row with every feature, rows first"
    )
    jacobian: Jacobian | None = Field(None, description="of a job about derivatives")
    tightness: Tightness | None = Field(None, description="of a job about tightness, whose verdict is measured")
    patterns: Patterns | None = Field(None, description="of a job that mines them, whose verdict is measured")
    radius: Radius | None = Field(None, description="of a job about the largest radius; epsilon is verified, or null")


class Counts(Response):
    """Items by verdict at one radius."""

    epsilon: float | None
    verified: int
    falsified: int
    unknown: int
    timeout: int


class JobResult(Response):
    """What a finished job found."""

    verdict: str = Field(description="verified if every item is; else falsified, timeout, unknown in this order")
    items: list[Item]
    summary: list[Counts]
    stats: dict[str, float]
    batch: BatchSummary | None = Field(None, description="of a batch, whose rows are in its files")


class JobStatus(Response):
    """A job without its result."""

    id: str
    model: str
    state: State
    reason: str | None = Field(description="why it is in this state, where that needs saying")
    error: dict[str, Any] | None = Field(description="the problem that ended it, as RFC 9457 has it")
    kind: str = Field("", description="the question: inputs, batch, specification, ...: the members of a request")
    method: str
    seconds: float = Field(description="the budget")
    seed: int
    certificates: bool
    priority: int = 0
    parent: str | None = Field(None, description="the job that it is a part of")
    attempt: int
    parked: bool = Field(False, description="failed because its workers died again and again, which costs no verdict")
    verdict: str | None = Field(None, description="of the result, once there is one")
    reused: str | None = Field(None, description="the job whose answer this is: nothing was computed")
    compute_seconds: float = Field(0.0, description="wall-clock seconds of all attempts that are over")
    progress: Progress
    created_at: AwareDatetime
    changed_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class Transition(Response):
    """One change of a job's state."""

    change: int = Field(description="which change of the job this was: the id of its event")
    state: State
    attempt: int
    reason: str | None
    at: AwareDatetime


class Job(JobStatus):
    """A job; its result once it has succeeded."""

    history: list[Transition] = Field([], description="every state it has been in, oldest first")
    parts: dict[State, int] = Field({}, description="how many of the jobs that it has fallen into are in each state")
    files: list[File] = Field([], description="of a batch: GET /v1/batches/{id}/files/{name}")
    result: JobResult | None = None


class Jobs(Response):
    """A page of jobs, newest first, without results."""

    items: list[JobStatus]
    next: str | None = Field(description="cursor of the next page; null at the end")


class BackendInfo(Response):
    """A method and what it can do."""

    name: str
    summary: str
    verdicts: list[str]
    norms: list[str]
    gpu: bool
    status: str


class Health(Response):
    """Alive, and which version."""

    status: Literal["ok"] = "ok"
    version: str


class Readiness(Response):
    """Whether each part works."""

    database: str
    blobs: str
    engine: str
    sandbox: dict[str, str] = Field(description="layers of the sandbox: active, or why not")
    slots: int | None = Field(description="jobs that all supervisors run at a time; 0: they wait; null: not known")
