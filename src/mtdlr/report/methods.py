"""A draft of the methods section from what the run recorded, in sentences an author can edit, and its references."""

from __future__ import annotations

from collections.abc import Mapping

from mtdlr.report.checklist import Fact

SENTENCES = (
    ("patients", "The study had {patients}.", ()),
    ("centres", "Patients came from {centres}.", ()),
    ("left_out", "Of the patients with data, {left_out}.", ()),
    ("follow_up", "Follow-up: {follow_up}.", ("schemper1996",)),
    ("endpoint", "The endpoint was {endpoint}.", ()),
    ("missing", "Missing data: {missing}.", ()),
    ("preparation", "PET and CT were prepared on a common grid: {preparation}.", ()),
    ("network", "Tumour masks and deep scores came from DeepMTS and a single-task network: {network}.",
     ("gu2023", "meng2022")),
    ("training", "Training: {training}.", ()),
    ("folds", "Scores of training patients were out of fold: {folds}.", ()),
    ("features", "Radiomics features were computed in the masks: {features}.", ("zwanenburg2020", "griethuysen2017")),
    ("resampling", "For them images were resampled: {resampling}.", ()),
    ("discretisation", "Grey levels were discretised with {discretisation}.", ()),
    ("robustness", "Features that were not robust were removed: {robustness}.", ()),
    ("selection", "Signatures were selected by Lasso-Cox regression: {selection}.", ("simon2011",)),
    ("nomogram", "The nomogram is a Cox model of the training cohort with log hazards {nomogram}.", ("gu2023",)),
    ("cutoff", "Risk groups were formed at a frozen cut-off: {cutoff}.", ()),
    ("measures", "Models were judged by {measures}.",
     ("harrell1982", "uno2011", "kang2015", "blanche2013", "austin2020", "demler2015", "vickers2006")),
    ("events_per_parameter", "There were {events_per_parameter}; {sample_size}.", ("riley2019",)),
    ("separated", "Hazard ratios of levels that events separate are Firth's: {separated}.", ("heinze2001",)),
    ("competing", "Competing events were {competing}; hazard ratios are cause-specific, and risk groups were compared "
     "by cumulative incidence and Gray's test.", ("gray1988",)),
    ("nomogram", "Proportional hazards were tested with scaled Schoenfeld residuals.", ("grambsch1994",)),
    ("version", "Computations were done with {version}; {settings}.", ()),
    ("lists", "The report follows TRIPOD+AI, CLEAR and METRICS.", ("collins2024", "kocak2023", "kocak2024")),
)
"""The fact that a sentence rests on, the sentence, and what it cites."""

REFERENCES: dict[str, tuple[str, str, str, int, str]] = {
    "gu2023": ("Gu, B. and Meng, M. and others", "Multi-task deep learning-based radiomic nomogram for prognostic "
               "prediction in locoregionally advanced nasopharyngeal carcinoma", "Eur J Nucl Med Mol Imaging", 2023,
               "10.1007/s00259-023-06399-7"),
    "meng2022": ("Meng, M. and others", "DeepMTS: deep multi-task learning for survival prediction in patients with "
                 "advanced nasopharyngeal carcinoma using pretreatment PET/CT", "IEEE J Biomed Health Inform", 2022,
                 "10.1109/JBHI.2022.3181791"),
    "zwanenburg2020": ("Zwanenburg, A. and others", "The image biomarker standardization initiative", "Radiology", 2020,
                       "10.1148/radiol.2020191145"),
    "griethuysen2017": ("van Griethuysen, J. J. M. and others", "Computational radiomics system to decode the "
                        "radiographic phenotype", "Cancer Res", 2017, "10.1158/0008-5472.CAN-17-0339"),
    "simon2011": ("Simon, N. and others", "Regularization paths for Cox's proportional hazards model via coordinate "
                  "descent", "J Stat Softw", 2011, "10.18637/jss.v039.i05"),
    "harrell1982": ("Harrell, F. E. and others", "Evaluating the yield of medical tests", "JAMA", 1982,
                    "10.1001/jama.1982.03320430047030"),
    "uno2011": ("Uno, H. and others", "On the C-statistics for evaluating overall adequacy of risk prediction "
                "procedures with censored survival data", "Stat Med", 2011, "10.1002/sim.4154"),
    "kang2015": ("Kang, L. and others", "Comparing two correlated C indices with right-censored survival outcome",
                 "Stat Med", 2015, "10.1002/sim.6370"),
    "blanche2013": ("Blanche, P. and Dartigues, J.-F. and Jacqmin-Gadda, H.", "Estimating and comparing time-dependent "
                    "areas under receiver operating characteristic curves for censored event times with competing "
                    "risks", "Stat Med", 2013, "10.1002/sim.5958"),
    "austin2020": ("Austin, P. C. and Harrell, F. E. and van Klaveren, D.", "Graphical calibration curves and the "
                   "integrated calibration index (ICI) for survival models", "Stat Med", 2020, "10.1002/sim.8570"),
    "demler2015": ("Demler, O. V. and Paynter, N. P. and Cook, N. R.", "Tests of calibration and goodness-of-fit in "
                   "the survival setting", "Stat Med", 2015, "10.1002/sim.6428"),
    "vickers2006": ("Vickers, A. J. and Elkin, E. B.", "Decision curve analysis: a novel method for evaluating "
                    "prediction models", "Med Decis Making", 2006, "10.1177/0272989X06295361"),
    "riley2019": ("Riley, R. D. and others", "Minimum sample size for developing a multivariable prediction model: "
                  "part II, binary and time-to-event outcomes", "Stat Med", 2019, "10.1002/sim.7992"),
    "grambsch1994": ("Grambsch, P. M. and Therneau, T. M.", "Proportional hazards tests and diagnostics based on "
                     "weighted residuals", "Biometrika", 1994, "10.1093/biomet/81.3.515"),
    "schemper1996": ("Schemper, M. and Smith, T. L.", "A note on quantifying follow-up in studies of failure time",
                     "Control Clin Trials", 1996, "10.1016/0197-2456(96)00075-X"),
    "heinze2001": ("Heinze, G. and Schemper, M.", "A solution to the problem of monotone likelihood in Cox regression",
                   "Biometrics", 2001, "10.1111/j.0006-341X.2001.00114.x"),
    "gray1988": ("Gray, R. J.", "A class of k-sample tests for comparing the cumulative incidence of a competing risk",
                 "Ann Stat", 1988, "10.1214/aos/1176350951"),
    "collins2024": ("Collins, G. S. and others", "TRIPOD+AI statement", "BMJ", 2024, "10.1136/bmj-2023-078378"),
    "kocak2023": ("Kocak, B. and others", "CheckList for EvaluAtion of Radiomics research (CLEAR)", "Insights Imaging",
                  2023, "10.1186/s13244-023-01415-8"),
    "kocak2024": ("Kocak, B. and others", "METhodological RadiomICs Score (METRICS)", "Insights Imaging", 2024,
                  "10.1186/s13244-023-01572-w"),
}
"""Authors, title, journal, year and DOI of what the sentences cite."""


def methods_text(facts: Mapping[str, Fact]) -> str:
    """The draft in Markdown: a sentence for each thing that this run did, with `[@key]` of `references.bib`."""
    values = {name: fact.value for name, fact in facts.items()}
    sentences = []
    for name, sentence, cited in SENTENCES:
        if values.get(name):
            keys = f" [{'; '.join(f'@{key}' for key in cited)}]" if cited else ""
            sentences.append(sentence.format_map(values).rstrip(".") + keys + ".")
    return "# Methods (draft from the settings and results of this run; edit it)\n\n" + "\n".join(sentences) + "\n"


def bibtex() -> str:
    """Every reference as a BibTeX entry."""
    return "\n".join(
        f"@article{{{key},\n  author = {{{authors}}},\n  title = {{{{{title}}}}},\n  journal = {{{journal}}},\n"
        f"  year = {{{year}}},\n  doi = {{{doi}}}\n}}\n" for key, (authors, title, journal, year, doi) in
        sorted(REFERENCES.items()))
